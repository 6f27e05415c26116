"""The report on a run: one HTML page for readers who were not there.

============  ====================================================================
``page``      fills the template with the plain data of a result and its history
``timeline``  places spans of work on tracks, one for each worker
============  ====================================================================

The page needs nothing but itself: no script, no font, no picture of another address. It holds no values of rows and no
secrets. Needs the extra ``report`` (jinja2). Imports ``values.history`` and ``values.text``.
"""

"""The report on a run: one self-contained HTML page.

============  ====================================================================
``page``      fills the template with the plain data of a result and its history
``timeline``  places spans of work on tracks, one for each worker
============  ====================================================================

The page loads nothing: no script, font or picture from another address. It contains no values from rows and no secrets.
Needs the extra ``report`` (jinja2). Imports ``values.history`` and ``values.text``.
"""

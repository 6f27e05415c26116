"""From a file, a dict, or two URLs to the models of a job, with errors that name the line; and back to a file.

Imports ``connectors``, because a connector adds keys of its own. Opens no connection. A change here concerns how a job
is written and explained, never what it does.
"""

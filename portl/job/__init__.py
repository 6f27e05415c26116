"""Turn a file, a dict or two URLs into the models of a job, with errors that name the line; and write jobs to files.

Imports ``connectors``, because connectors add their own keys. Opens no connection. A change here affects how a job is
written and explained, never what it does.
"""

"""From a file, a dict, or two URLs to the models of a job, with errors that name the line; and back to text.

Imports the contract, for a connector adds its own keys. Opens no connection. A change here concerns how a job is
written and explained, never what it does.
"""

"""The models of a job: the keys of a job file as typed, frozen values, with their documentation and checks.

Imports nothing else from portl. Add a key here, or in the ``config`` module of the connector that it belongs to.
``portl.job`` turns a file into these models.
"""

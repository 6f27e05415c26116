"""The models of a job: the keys of a job file as typed, frozen values, each with its documentation and its checks.

Imports nothing of portl. Add a key here, or in the ``config`` module of the connector that it belongs to. How a file
becomes models is the business of ``portl.job``.
"""

"""The models of a job: the keys of a job file as typed, frozen values, each with its documentation and its checks.

Imports nothing of portl. A key is added here, or in the ``config`` module of the connector that it belongs to; how a
file becomes models is for ``portl.job``.
"""

"""Digests of rows, computed by the servers, for ``portl.verify``.

Imports ``wire`` and the packages below it. Both sides must compute the same digest for the same value, whatever their
version.
"""

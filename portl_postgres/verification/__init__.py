"""Digests of rows, computed in the servers, for ``portl.verify``.

Imports ``wire`` and what lies below. Both sides must compute the same digest for the same
value, whatever their version.
"""

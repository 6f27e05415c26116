"""The contract for connectors: source, destination, writer, comparer, ledger, and the values that they exchange.

Imports ``values``, ``schema`` and ``config``. Does no I/O and knows no connector: ``registry`` finds the installed
ones. A change here affects every connector author: update docs/connectors.md with it.

A source implements ``describe`` and ``rows``; a destination ``describe``, ``propose`` and a ``Writer``. Everything else
has a default. The methods are called in this order, in one thread:

* source: ``open``, ``describe``, ``formats``, ``examine``, ``count``, ``preview``, ``split`` and ``read``; ``close``;
* destination: ``open``, ``describe``, ``propose``, ``formats``, ``examine``, then ``writer``; ``close``;
* writer: ``begin``, ``write`` for each batch, ``commit`` or ``rollback``, repeatedly; at the end ``finish``, or
  ``abandon`` after a failure.

How rows travel is negotiated: the source offers formats for the job's fields, best first; the destination says which of
them it accepts; the first in common is used. Every connector supports ``ROWS``.
"""

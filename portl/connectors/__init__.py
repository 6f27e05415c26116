"""What a connector implements: source, destination, writer, comparer, ledger, and the values that cross the contract.

Imports ``values``, ``schema`` and ``config``. Does no I/O, and knows no connector: ``registry`` finds those that are
installed. A change here is a change for every author of a connector, so docs/connectors.md follows in the same step.
"""

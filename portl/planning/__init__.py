"""Examine both sides and plan a run, as plain values: ``Plan``, with a ``TableTask`` for each table.

Imports ``job`` and the packages below it. Writes nothing to either side. Whatever prevents a job from running is found
here, as a problem with a remedy; ``portl.execution`` executes the plan.
"""

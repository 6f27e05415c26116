"""portl beside psql, hand-written SQL and other tools, in one run on one machine: ``python -m benchmarks --help``."""

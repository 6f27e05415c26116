"""``portl demo``: a temporary server, a generated shop, and jobs that copy it."""

"""``portl demo``: a server of its own, a generated shop, and the jobs that move it."""

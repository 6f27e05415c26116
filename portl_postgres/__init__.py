"""PostgreSQL for portl: a plugin like any other, found through its entry point and built on portl's public names."""

"""PostgreSQL for portl: a plugin like any other, found through its entry point, built on portl's public names."""

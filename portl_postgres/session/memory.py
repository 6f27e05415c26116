"""The memory that a session has for building an index (manual, 20.4.1, maintenance_work_mem)."""

#: What an index is built with, and the value that stands for more of it, where the server seems to have it: a 16th of
#: what it takes for its cache, at most 1 GB, for each of a few workers; never less than it gives anyway.
MEMORY, AUTO = "maintenance_work_mem", "auto"
MORE_MEMORY = (
    f"(greatest(pg_size_bytes(current_setting('{MEMORY}')), least(1073741824,"
    " pg_size_bytes(current_setting('effective_cache_size')) / 16)) / 1024) || 'kB'"
)

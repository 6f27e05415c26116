"""A session's memory for building indexes (manual, 20.4.1, maintenance_work_mem)."""

#: The setting, and the expression for its value: a 16th of the presumed cache size, at most 1 GB, as each of a few
#: workers may use it; never less than the server's own setting.
MEMORY, AUTO = "maintenance_work_mem", "auto"
MORE_MEMORY = (
    f"(greatest(pg_size_bytes(current_setting('{MEMORY}')), least(1073741824,"
    " pg_size_bytes(current_setting('effective_cache_size')) / 16)) / 1024) || 'kB'"
)

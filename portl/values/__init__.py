"""Plain values: errors, events, results, runs, findings, secrets, the cancel token.

Imports only the standard library and attrs; everything may import it. What belongs here is a value, its fields and its
rendering as text; what is *done* with values belongs to the packages above.
"""

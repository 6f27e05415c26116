"""Plain values that know nothing above them: errors, events, results, runs, findings, secrets, the cancel token.

Imports nothing but the standard library and attrs. Everything may import it. A change here may add a value, a field, or
the way a value shows itself as text; what is *done* with values is for the rooms above.
"""

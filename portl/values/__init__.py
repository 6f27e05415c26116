"""Plain values that know nothing above them: errors, events, results, runs, findings, secrets, the cancel token.

Imports only the standard library and attrs. Everything may import it. A change here may add a value, a field, or how a
value is shown as text; what is *done* with values belongs to the rooms above.
"""

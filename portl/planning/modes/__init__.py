"""What each ``mode`` but ``full`` adds to the plan of a table."""

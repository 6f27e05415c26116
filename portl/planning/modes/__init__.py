"""What each ``mode`` other than ``full`` adds to the plan of a table."""

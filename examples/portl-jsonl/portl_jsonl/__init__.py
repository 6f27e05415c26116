"""JSON Lines files as source and destination of portl."""

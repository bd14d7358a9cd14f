"""Compare host and recipes."""

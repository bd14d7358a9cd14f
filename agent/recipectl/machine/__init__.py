"""This host's disk and processes."""

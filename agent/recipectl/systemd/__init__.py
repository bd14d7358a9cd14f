"""Units as text, as files and over D-Bus."""

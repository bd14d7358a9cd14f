"""recipectl: recipes in, systemd units out."""

__version__ = "0.1.0"

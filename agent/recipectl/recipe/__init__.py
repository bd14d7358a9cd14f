"""What people write: recipes and the host file."""

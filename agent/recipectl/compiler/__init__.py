"""From recipes to units."""

"""Recipes from what people have: a command, another tool's file, a unit. This room runs no command."""

"""Recipes from what people have: a command, another tool's file, a unit. No command that it reads is run."""

"""Recipes from what people have: a command, another tool's file, a unit. Pure; nothing here reads or runs."""

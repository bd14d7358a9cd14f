"""Upgrades of models: to another runtime or to what a recipe says, and back when anything fails."""

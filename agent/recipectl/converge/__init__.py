"""The host becomes what its recipes say."""

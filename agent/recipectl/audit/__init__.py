"""Is what runs what should run?"""

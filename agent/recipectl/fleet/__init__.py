"""Many hosts: their recipes together, from a checkout."""

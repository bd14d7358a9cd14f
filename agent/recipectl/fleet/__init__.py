"""Many hosts: their recipes together, from a checkout, and their versions over ssh."""

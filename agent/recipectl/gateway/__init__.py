"""One address for the models of a host: the configuration and the unit of an nginx of its own."""

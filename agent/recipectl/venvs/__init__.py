"""Virtual environments of engines: made from a lock, compared with their records, removed when unused."""

"""A run: planned, estimated, done shard by shard in worker processes."""

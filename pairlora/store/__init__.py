"""Where everything that lasts lies: keys, markers, payloads, on any file system that fsspec knows."""

"""What the library itself costs beside the models: runs of many pairs on a base that does nothing."""

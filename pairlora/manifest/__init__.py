"""From a manifest, row by row, to pairs."""

"""Adapters as artists get them: files that other tools open, what is written into them, and what lies beside them."""

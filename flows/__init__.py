"""Prefect flows: what is done, as a table of contents."""

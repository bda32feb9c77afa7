"""Thin Prefect tasks: open, load, call, put, return a record."""

"""Base models behind one interface: each architecture is one file, and `load_base` finds the right one."""

from pairlora.bases.loading import load_base

__all__ = ["load_base"]

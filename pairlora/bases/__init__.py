"""Base models behind one interface: each architecture is one file, and `load_base` finds the right one."""

from pairlora.bases.loading import load_base
from pairlora.bases.sdxl import Base, Conditions

__all__ = ["Base", "Conditions", "load_base"]

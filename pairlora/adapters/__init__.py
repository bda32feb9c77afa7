"""Two LoRAs on every attention projection: frozen orthonormal A, trainable B, and a routing of rows to adapters."""

from pairlora.adapters.basis import Basis, split_basis
from pairlora.adapters.dual import DualAdapters, DualLinear
from pairlora.adapters.routing import ConstantInputs, Role, Segment

__all__ = ["Basis", "ConstantInputs", "DualAdapters", "DualLinear", "Role", "Segment", "split_basis"]

# SPDX-License-Identifier: Apache-2.0
"""Style guidance for ComfyUI: copy this folder into `custom_nodes`."""

from .nodes import StyleGuiderNode

NODE_CLASS_MAPPINGS = {"PairStyleGuider": StyleGuiderNode}
NODE_DISPLAY_NAME_MAPPINGS = {"PairStyleGuider": "Style Guider (pairlora)"}

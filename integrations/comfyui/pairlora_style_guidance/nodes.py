# SPDX-License-Identifier: Apache-2.0
"""A guider for ComfyUI's custom sampling: the base draws the prompt, and the style's LoRA leads it there.

ComfyUI keeps one copy of a model's weights, so the base and the base with a LoRA come from its hooks: the styled prompt carries the
LoRA, and ComfyUI puts it into the weights for that prompt alone.
"""

from typing import Any

import comfy.samplers  # pyright: ignore[reportMissingImports]  ComfyUI brings it

from .guidance import lead_prediction


class StyleGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance whose prediction for the prompt is led towards that for the styled prompt."""

    strength = 0.0
    start_percent = 0.0

    def set_prompts(self, positive: Any, styled: Any, negative: Any) -> None:
        """Conditionings of the plain prompt, the prompt in the style with the LoRA's hook, and the negative prompt."""
        self.inner_set_conds({"positive": positive, "styled": styled, "negative": negative})

    def set_strength(self, strength: float, start_percent: float) -> None:
        """The strength in units of the guidance scale, below 0 to lead away, and the share of the schedule that is drawn without style."""
        self.strength, self.start_percent = strength, start_percent

    def predict_noise(self, x: Any, timestep: Any, model_options: Any = None, seed: int | None = None) -> Any:
        """The guided prediction at `timestep`, a noise level, for the latents `x`."""
        options = model_options or {}
        negative, positive = self.conds.get("negative"), self.conds.get("positive")
        told = [None if self.cfg == 1 else negative, positive]
        guided = self.strength != 0 and self._has_started(timestep)
        out = comfy.samplers.calc_cond_batch(self.inner_model, told + [self.conds["styled"]] * guided, x, timestep, options)
        led = lead_prediction(out[1], out[2], self.strength, self.cfg) if guided else out[1]
        return comfy.samplers.cfg_function(self.inner_model, led, out[0], self.cfg, x, timestep, options, positive, negative)

    def _has_started(self, timestep: Any) -> bool:
        return float(timestep.max()) <= self.inner_model.model_sampling.percent_to_sigma(self.start_percent)


class StyleGuiderNode:
    """Makes the guider from a model, three prompts, the guidance scale, the strength and the start."""

    CATEGORY = "sampling/custom_sampling/guiders"
    RETURN_TYPES = ("GUIDER",)
    FUNCTION = "make_guider"
    DESCRIPTION = "Style guidance by a LoRA that was learned from one pair of pictures; the styled prompt carries the LoRA as a hook."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """The node's inputs, as ComfyUI asks for them."""
        scale = {"default": 5.0, "min": 1.0, "max": 100.0, "step": 0.1, "tooltip": "guidance scale"}
        strength = {"default": 3.0, "min": -100.0, "max": 100.0, "step": 0.05, "tooltip": "usually 0 to the guidance scale"}
        start = {"default": 0.2, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "share of the schedule that is drawn without style"}
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "the base, without the LoRA"}),
                "positive": ("CONDITIONING", {"tooltip": "the plain prompt"}),
                "styled": ("CONDITIONING", {"tooltip": "the prompt in the style, with the LoRA as a hook"}),
                "negative": ("CONDITIONING",),
                "cfg": ("FLOAT", scale),
                "strength": ("FLOAT", strength),
                "start_percent": ("FLOAT", start),
            }
        }

    def make_guider(
        self, model: Any, positive: Any, styled: Any, negative: Any, cfg: float, strength: float, start_percent: float
    ) -> tuple[StyleGuider]:
        """The guider that a sampler of ComfyUI takes."""
        guider = StyleGuider(model)
        guider.set_prompts(positive, styled, negative)
        guider.set_cfg(cfg)
        guider.set_strength(strength, start_percent)
        return (guider,)

# SPDX-License-Identifier: Apache-2.0
"""Style guidance for stock diffusers pipelines: one file to copy, which needs diffusers, peft and torch alone.

    pipeline.load_lora_weights("style.safetensors", adapter_name="ink")
    ink = Style("ink", "{prompt}, in ink", strength=3.0)
    draw_styled(pipeline, "a photo of a cat", [ink], guidance_scale=5.0).images[0].save("cat.png")

Jones et al. 2024 (arXiv 2405.01536), eqs. 10 and 11, with e0 of the base alone and e_i of the base with style adapter i:

    eps = e0(no prompt) + guidance_scale * (e0(prompt) - e0(no prompt)) + sum_i strength_i * (e_i(styled prompt) - e0(prompt))

A pipeline computes e0(no prompt) + guidance_scale * (p - e0(no prompt)) from what its denoiser predicts for the prompt. Here the
denoiser predicts p = e0(prompt) + sum_i strength_i / guidance_scale * (e_i(styled prompt) - e0(prompt)), which makes the two sums
equal: a hook on the denoiser does, and the pipeline stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@dataclass(frozen=True)
class Style:
    """A loaded adapter by its name, how a prompt reads in its style, and its strength.

    `template` holds {prompt}. `strength` is counted as the guidance scale is, usually 0 to that; below 0 it leads away from the style.
    """

    adapter: str
    template: str
    strength: float


def draw_styled(
    pipeline: Any, prompt: str | list[str], styles: Sequence[Style], *, guidance_scale: float = 5.0, onset: float = 800, **settings: Any
) -> Any:
    """What `pipeline(prompt, **settings)` gives, drawn with style guidance.

    `pipeline` is one of SDXL, Stable Diffusion or FLUX with the adapters of all styles loaded. Styles guide at timesteps up to
    `onset`, of 1000. FLUX is guided in the open: `guidance_scale` is its `true_cfg_scale`, and the guidance that it is told is 1.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if hasattr(pipeline, "transformer"):
        settings = {"negative_prompt": [""] * len(prompts), **settings, "true_cfg_scale": guidance_scale, "guidance_scale": 1.0}
    else:
        settings["guidance_scale"] = guidance_scale
    told = {name: settings[name] for name in ("clip_skip", "max_sequence_length") if name in settings}
    with style_guided(pipeline, prompts, styles, guidance_scale=guidance_scale, onset=onset, **told):
        return pipeline(prompts, **settings)


@contextmanager
def style_guided(
    pipeline: Any, prompts: Sequence[str], styles: Sequence[Style], *, guidance_scale: float, onset: float, **told: Any
) -> Iterator[None]:
    """Within the block, the pipeline draws these prompts, at this guidance scale, with style guidance. `told` goes to `encode_prompt`."""
    active = [style for style in styles if style.strength]
    adapters = LoadedAdapters(pipeline, [style.adapter for style in active])
    conditions = []
    for style in active:
        with adapters.only(style.adapter):
            conditions.append(encode_prompts(pipeline, [style.template.replace("{prompt}", prompt) for prompt in prompts], **told))
    hook = StyleHook(pipeline, adapters, list(zip(active, conditions, strict=True)), guidance_scale, onset)
    denoiser = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    handle = denoiser.register_forward_hook(hook, with_kwargs=True)
    try:
        with adapters.only(None):
            yield
    finally:
        handle.remove()


class LoadedAdapters:
    """The LoRA layers of a pipeline, switched between one adapter and none."""

    def __init__(self, pipeline: Any, names: Sequence[str]):
        """ValueError where one of `names` is not loaded, or where adapters are fused into the base."""
        loaded = {name for names in pipeline.get_list_adapters().values() for name in names}
        if missing := [name for name in names if name not in loaded]:
            raise ValueError(f"the pipeline has no adapter {missing[0]!r}, only {sorted(loaded)}; load it with load_lora_weights")
        parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
        self._layers = [layer for part in parts for layer in part.modules() if isinstance(layer, BaseTunerLayer)]
        if any(layer.merged for layer in self._layers):
            raise ValueError("adapters are fused into the base, which style guidance compares with; call unfuse_lora() first")

    @contextmanager
    def only(self, name: str | None) -> Iterator[None]:
        """Within the block, one adapter is on, or none; then all is as it was."""
        before = [(layer.disable_adapters, list(layer.active_adapters)) for layer in self._layers]
        for layer in self._layers:
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter(name)
        try:
            yield
        finally:
            for layer, (disabled, active) in zip(self._layers, before, strict=True):
                layer.set_adapter(active)
                layer.enable_adapters(not disabled)


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: list[str], **told: Any) -> dict[str, Any]:
    """The denoiser's arguments that say what to draw, one row a prompt."""
    device = pipeline._execution_device  # a pipeline that is offloaded has no other name for it
    if hasattr(pipeline, "transformer"):
        states, pooled, _ = pipeline.encode_prompt(prompts, None, device=device, **told)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}
    if hasattr(pipeline, "text_encoder_2"):
        states, _, pooled, _ = pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False, **told)
        return {"encoder_hidden_states": states, "added_cond_kwargs": {"text_embeds": pooled}}
    states, _ = pipeline.encode_prompt(prompts, device, 1, False, **told)
    return {"encoder_hidden_states": states}


class StyleHook:
    """A forward hook of a denoiser that leads its predictions for the prompt towards styles."""

    def __init__(
        self, pipeline: Any, adapters: LoadedAdapters, styles: Sequence[tuple[Style, dict[str, Any]]], guidance_scale: float, onset: float
    ):
        self._pipeline, self._adapters, self._styles = pipeline, adapters, styles
        self._guidance_scale, self._onset = guidance_scale, onset
        self._timestep: float | None = None

    def __call__(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        t, is_first = self._read_timestep(args, kwargs)
        prediction: Tensor = output[0]
        rows = self._find_rows(len(prediction), is_first)
        if rows is None or t > self._onset or not self._styles:
            return None
        cond, led = prediction[rows], prediction[rows].clone()
        arguments = take_rows((args, kwargs), len(prediction), rows)
        for style, condition in self._styles:
            with self._adapters.only(style.adapter):
                styled = denoiser.forward(*arguments[0], **replace_rows(arguments[1], condition, len(cond)))[0]
            led += style.strength / self._guidance_scale * (styled - cond)
        whole = prediction.clone()
        whole[rows] = led
        return (whole, *output[1:])

    def _read_timestep(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[float, bool]:
        """The timestep, of 1000, and whether this is the first forward at it."""
        if "timestep" in kwargs:  # FLUX, which is told it as a share of 1
            t = 1000 * float(kwargs["timestep"].flatten()[0])
        else:
            t = 1000 * float(args[1]) / self._pipeline.scheduler.config.num_train_timesteps
        is_first, self._timestep = t != self._timestep, t
        return t, is_first

    def _find_rows(self, count: int, is_first: bool) -> slice | None:
        """The rows that were told the prompt: a UNet's second half, or all where there is no guidance; FLUX's first forward of a step."""
        if not hasattr(self._pipeline, "unet"):
            return slice(0, count) if is_first else None
        return slice(count // 2 if self._pipeline.do_classifier_free_guidance else 0, count)


def take_rows(value: Any, count: int, rows: slice) -> Any:
    """Some rows of every tensor that has `count` of them, in nested arguments; all else as it is."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == count else value
    if isinstance(value, dict):
        return {name: take_rows(one, count, rows) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(take_rows(one, count, rows) for one in value)
    return value


def replace_rows(arguments: dict[str, Any], condition: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Arguments with those of a condition in their place, each of whose rows stands for equally many of the `count` rows."""
    replaced = dict(arguments)
    for name, value in condition.items():
        if isinstance(value, Mapping):
            replaced[name] = replace_rows(arguments[name], value, count)
        else:
            replaced[name] = value.repeat_interleave(count // len(value), dim=0)
    return replaced

"""ComfyUI's guider, on a stand-in for ComfyUI that predicts with the sampler's own denoiser: both draw the same.

ComfyUI is not on PyPI. The stand-in has what the node calls, by ComfyUI's names and with its meaning: predictions are pictures, noise
levels are sigmas, and a conditioning may carry a hook that puts a LoRA into the weights for it alone.
"""

import importlib
import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from styled_base import PROMPT, STYLED, styled
from tiny_base import SAMPLE

from pairlora.adapters import Role, Segment
from pairlora.sampling.sampler import Sampler, initial_noise
from pairlora.sampling.schedules import initial_scale

# diffusers turns its tensors into arrays in a way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

EULER = SAMPLE.model_copy(update={"scheduler": "EulerDiscreteScheduler", "steps": 5, "onset": 700})


class PictureModel:
    """A model as ComfyUI has it: told latents and a sigma, it predicts the picture."""

    def __init__(self, base, adapters):
        self.base, self.adapters = base, adapters
        self.calls: list[int] = []
        levels = base.make_scheduler(EULER.scheduler, 1000).sigmas.flip(0)[1:]
        self.model_sampling = SimpleNamespace(percent_to_sigma=lambda percent: float(levels[round((1 - percent) * 999)]))
        drawing = base.make_scheduler(EULER.scheduler, EULER.steps)
        self.timesteps, self.sigmas = drawing.timesteps, drawing.sigmas[:-1].double()

    def predict(self, x: torch.Tensor, sigma: torch.Tensor, condition: dict) -> torch.Tensor:
        """`x - sigma * eps`, with the LoRA where the condition carries its hook."""
        t = self.timesteps[(self.sigmas - sigma).abs().argmin()]
        told = self.base.encode_prompts([condition["prompt"]])
        with self.adapters.routed([Segment(0, 1, Role.STYLE, (0,))] if condition.get("hooks") else []):
            eps = self.base.predict(x / (sigma**2 + 1) ** 0.5, t.expand(1), told, SAMPLE.size)
        return x - sigma * eps


class CFGGuider:
    """What ComfyUI's guiders descend from."""

    def __init__(self, model):
        self.inner_model, self.conds, self.cfg = model, {}, 1.0

    def inner_set_conds(self, conds):
        self.conds |= conds

    def set_cfg(self, cfg):
        self.cfg = cfg


def calc_cond_batch(model, conds, x, timestep, model_options):
    model.calls.append(sum(cond is not None for cond in conds))
    return [torch.zeros_like(x) if cond is None else model.predict(x, timestep, cond) for cond in conds]


def cfg_function(model, cond_pred, uncond_pred, cond_scale, x, timestep, model_options, cond, uncond):
    return uncond_pred + (cond_pred - uncond_pred) * cond_scale


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch):
    """The node's module, where `comfy.samplers` is the stand-in."""
    comfy, samplers = ModuleType("comfy"), ModuleType("comfy.samplers")
    vars(samplers).update({"CFGGuider": CFGGuider, "calc_cond_batch": calc_cond_batch, "cfg_function": cfg_function})
    vars(comfy)["samplers"] = samplers
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
    for name in ("pairlora_style_guidance", "pairlora_style_guidance.nodes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("pairlora_style_guidance")


def make_guider(nodes, model: PictureModel, **settings: float):
    (kind,) = nodes.NODE_CLASS_MAPPINGS.values()
    asked = kind.INPUT_TYPES()["required"]
    conditions = {"positive": {"prompt": PROMPT}, "styled": {"prompt": STYLED, "hooks": "lora"}, "negative": {"prompt": ""}}
    given = {"model": model, **conditions, "cfg": 3.0, "strength": 2.0, "start_percent": 0.3} | settings
    assert asked.keys() == given.keys()
    return getattr(kind(), kind.FUNCTION)(**given)[0]


def draw_by_guider(guider, base) -> torch.Tensor:
    """Euler's steps in sigmas, as ComfyUI's sampler `euler` takes them."""
    scheduler: EulerDiscreteScheduler = base.make_scheduler(EULER.scheduler, EULER.steps)
    x = initial_noise(0, base.latent_shape(SAMPLE.size))[None].double() * initial_scale(scheduler)
    sigmas = scheduler.sigmas.double()
    with torch.inference_mode():
        for now, then in pairwise(sigmas):
            x = x + (x - guider.predict_noise(x, now.expand(1))) / now * (then - now)
    return x


@pytest.mark.parametrize("strength", [2.0, -1.0])
def test_the_guider_draws_what_the_sampler_draws(nodes, base, adapters, strength: float):
    model = PictureModel(base, adapters)
    drawn = draw_by_guider(make_guider(nodes, model, strength=strength), base)
    ours = Sampler(base, adapters, EULER).draw_latents([styled(strength)])
    assert torch.allclose(drawn, ours, atol=1e-4)
    assert (ours - Sampler(base, adapters, EULER).draw_latents([styled(0.0)])).abs().max() > 1e-2


def test_the_styled_prompt_costs_nothing_before_the_start_or_without_strength(nodes, base, adapters):
    for settings, calls in (({}, {2, 3}), ({"strength": 0.0}, {2}), ({"cfg": 1.0, "start_percent": 0.0}, {2})):
        model = PictureModel(base, adapters)
        draw_by_guider(make_guider(nodes, model, **settings), base)
        assert set(model.calls) == calls
    assert model.calls == [2] * EULER.steps

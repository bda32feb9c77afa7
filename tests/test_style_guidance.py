"""The file to copy: a stock pipeline with it draws what the sampler draws, also where there is no pairlora."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from style_guidance import Style, draw_styled
from tiny_base import TRAIN
from tiny_bases import MAKERS

from pairlora.adapters import Role
from pairlora.adapters.files import encode_adapter
from pairlora.bases import load_base
from pairlora.bases.loading import EMBEDDED
from pairlora.config import SampleConfig, TrainConfig
from pairlora.execution.pipeline import style_attached
from pairlora.presets import PRESETS
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, initial_noise
from pairlora.training.packs import fresh_adapters

COPIED = Path(__file__).parents[1] / "integrations" / "diffusers" / "style_guidance.py"
PROMPT, TEMPLATE, SEED = "a flat icon of a fox", "{prompt}, in ink", 3
STYLED = TEMPLATE.replace("{prompt}", PROMPT)
SAMPLE = SampleConfig(steps=5, guidance_scale=3.0, onset=700, size=32)
ISOLATED = """
import sys
sys.modules["pairlora"] = None  # importing it is an error from here on
sys.path.insert(0, {copied!r})
import torch
from diffusers import StableDiffusionXLPipeline
from style_guidance import Style, draw_styled

pipeline = StableDiffusionXLPipeline.from_pretrained({base!r}, use_safetensors=True, add_watermarker=False)
pipeline.set_progress_bar_config(disable=True)
pipeline.load_lora_weights({folder!r}, weight_name="style.safetensors", adapter_name="style")
style = Style("style", {template!r}, strength={strength})
settings = dict(num_inference_steps={steps}, height=64, width=64, generator=torch.Generator().manual_seed({seed}))
drawn = draw_styled(pipeline, {prompt!r}, [style], guidance_scale={scale}, onset={onset}, **settings)
drawn.images[0].save({folder!r} + "/drawn.png")
"""


def make_style(base, train: TrainConfig, scale: float, seed: int = 5):
    """A random style adapter on the base."""
    with fresh_adapters(base, train, 1) as adapters:
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data = scale * torch.randn(parameter.shape, generator=generator).to(parameter)
        return adapters.extract(0, Role.STYLE)


def write_style(folder: Path, style, denoiser: str = "unet") -> None:
    (folder / "style.safetensors").write_bytes(encode_adapter(style, {}, denoiser))


def draw_ours(base, style, strength: float, sample: SampleConfig = SAMPLE) -> torch.Tensor:
    with style_attached(base, style) as adapters:
        request = ImageRequest(PROMPT, SEED, (StyleTerm(0, STYLED, strength),))
        return Sampler(base, adapters, sample).draw_latents([request])


def draw_stock(base, style, folder: Path, strength: float, **settings) -> torch.Tensor:
    """The stock pipeline's latents with the file, packed as the pipeline packs them."""
    pipeline = base.pipeline
    write_style(folder, style, base.denoiser_name)
    pipeline.load_lora_weights(folder, weight_name="style.safetensors", adapter_name="style")
    pipeline.to(torch.float64)
    noise = initial_noise(SEED, base.latent_shape(SAMPLE.size))[None].double()
    if base.denoiser_name == "transformer":
        noise = pipeline._pack_latents(noise, 1, *noise.shape[1:])
        settings["max_sequence_length"] = base.token_limit()
    settings |= {"num_inference_steps": SAMPLE.steps, "height": 32, "width": 32, "output_type": "latent", "latents": noise}
    drawn = draw_styled(pipeline, PROMPT, [Style("style", TEMPLATE, strength)], guidance_scale=3.0, onset=700, **settings)
    return drawn.images


@pytest.mark.parametrize(("kind", "strength"), [("sdxl", 2.0), ("sd15", -1.5), ("flux", 2.0)])
def test_a_stock_pipeline_with_the_file_draws_what_the_sampler_draws(kind: str, strength: float, tmp_path: Path):
    style = make_style(MAKERS[kind](), TRAIN, 0.2)
    ours = draw_ours(MAKERS[kind](), style, strength)
    plain = draw_ours(MAKERS[kind](), style, 0.0)
    base = MAKERS[kind]()
    theirs = draw_stock(base, style, tmp_path, strength)
    if kind == "flux":
        theirs = base.pipeline._unpack_latents(theirs, 32, 32, base.pipeline.vae_scale_factor)
    assert torch.allclose(theirs, ours, atol=1e-6)
    assert (ours - plain).abs().max() > 1e-3


def test_every_picture_of_a_batch_is_led_by_its_own_styled_prompt(tmp_path: Path):
    base = MAKERS["sdxl"]()
    pipeline, style = base.pipeline, make_style(base, TRAIN, 0.2)
    write_style(tmp_path, style)
    pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors", adapter_name="style")
    pipeline.to(torch.float64)
    noise = torch.stack([initial_noise(seed, base.latent_shape(32)) for seed in range(4)]).double()
    settings = {"num_inference_steps": 3, "height": 32, "width": 32, "output_type": "latent"}
    styles = [Style("style", TEMPLATE, 1.0)]
    both = draw_styled(pipeline, ["a fox", "a cat"], styles, num_images_per_prompt=2, latents=noise, **settings).images
    alone = draw_styled(pipeline, "a cat", styles, latents=noise[3:], **settings).images
    assert torch.allclose(both[3], alone[0], atol=1e-9)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")  # PEFT's word on a second adapter
def test_styles_add_up_and_the_pipeline_is_left_as_it_was(tmp_path: Path):
    base = MAKERS["sdxl"]()
    pipeline, style = base.pipeline, make_style(base, TRAIN, 0.2)
    write_style(tmp_path, style)
    for name in ("first", "second"):
        pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors", adapter_name=name)
    pipeline.to(torch.float64)
    pipeline.set_adapters(["first", "second"], [0.5, 0.25])
    noise = initial_noise(SEED, base.latent_shape(32))[None].double()
    settings = {"num_inference_steps": 3, "height": 32, "width": 32, "output_type": "latent"}

    def draw(*styles: Style) -> torch.Tensor:
        return draw_styled(pipeline, PROMPT, styles, latents=noise, **settings).images

    before = pipeline(PROMPT, latents=noise, **settings).images
    pipeline.set_adapters(["first", "second"], [1.0, 1.0])
    halves = draw(Style("first", TEMPLATE, 1.0), Style("second", TEMPLATE, 1.0))
    assert torch.allclose(halves, draw(Style("second", TEMPLATE, 2.0)), atol=1e-9)
    pipeline.set_adapters(["first", "second"], [0.5, 0.25])
    assert torch.equal(pipeline(PROMPT, latents=noise, **settings).images, before)
    with pytest.raises(ValueError, match="no adapter 'third'"):
        draw(Style("third", TEMPLATE, 1.0))


def test_without_pairlora_the_embedded_base_draws_the_same_picture(tmp_path: Path):
    recipe = PRESETS["embedded"]
    sample = SampleConfig.model_validate(recipe["sample"] | {"steps": 6})
    base = load_base("embedded")
    style = make_style(base, TrainConfig(**recipe["train"]), 0.02)
    with style_attached(base, style) as adapters:
        request = ImageRequest(PROMPT, SEED, (StyleTerm(0, STYLED, 2.5),))
        ours, plain = Sampler(base, adapters, sample).draw([request, ImageRequest(PROMPT, SEED)])
    write_style(tmp_path, style)
    facts = {"copied": str(COPIED.parent), "base": str(EMBEDDED), "folder": str(tmp_path), "template": TEMPLATE, "prompt": PROMPT}
    facts |= {"strength": 2.5, "steps": sample.steps, "seed": SEED, "scale": sample.guidance_scale, "onset": sample.onset}
    done = subprocess.run([sys.executable, "-c", ISOLATED.format(**facts)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    assert np.abs(theirs - np.asarray(ours)).max() <= 1
    assert np.abs(theirs - np.asarray(plain)).max() > 20

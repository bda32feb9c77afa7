"""The edges of a finished picture in the sampler: a ControlNet of diffusers holds every row to them, styled or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetPipeline, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline
from PIL import Image, ImageDraw
from stocked_store import INK, Stock, open_drawing, write_catalogue
from styled_base import PROMPT, STYLED, random_styles
from test_catalogue import read_files
from tiny_base import SAMPLE, SIZE, make_base
from tiny_bases import MAKERS, make_sd15
from tiny_controls import make_control

from pairlora.bases import load_base
from pairlora.bases.control import load_control
from pairlora.bases.flux import EMBEDDED_GUIDANCE, pack_latents, unpack_latents
from pairlora.bases.interface import Control
from pairlora.catalogue.config import ControlConfig, read_catalogue_config
from pairlora.catalogue.costs import estimate_catalogue
from pairlora.catalogue.edges import find_edges
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.runs import open_catalogue
from pairlora.errors import BaseModelError, ConfigError, LicenceError
from pairlora.sampling.guidance import guide
from pairlora.sampling.inversion import draw_from_noise
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, initial_noise, route_slots

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # diffusers with NumPy 2
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),  # diffusers of itself
]
SEED = 7
PLAIN = ImageRequest(PROMPT, SEED, origin="a")
STOCK = {"sdxl": StableDiffusionXLControlNetPipeline, "sd15": StableDiffusionControlNetPipeline, "flux": FluxControlNetPipeline}


def make_edges(left: int = 8) -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE))
    ImageDraw.Draw(picture).rectangle((left, 6, SIZE - 8, SIZE - 4), outline="white")
    return picture


def control(base, net, edges: Image.Image, scale: float = 0.8) -> Control:
    return Control(net, base.encode_hints([edges]), scale)


def configure(base, guidance_scale: float = 1.0, onset: int = 600):
    scheduler = "EulerDiscreteScheduler" if base.family == "sd15" else None
    return SAMPLE.model_copy(update={"guidance_scale": guidance_scale, "scheduler": scheduler, "onset": onset})


def draw(base, controls, *requests: ImageRequest, adapters=None, **settings) -> torch.Tensor:
    """From the noise alone to the end, as a catalogue's assets are drawn."""
    sampler = Sampler(base, adapters, configure(base, **settings), controls=controls)
    plain = [ImageRequest(one.prompt, one.seed, origin=one.origin) for one in requests]
    return sampler.continue_latents(requests, draw_from_noise(sampler, plain))


def draw_stock(base, net, edges: Image.Image, guidance_scale: float, scale: float = 0.8) -> torch.Tensor:
    """What diffusers' own pipeline draws from the same noise, held to the same edges."""
    pipeline = STOCK[base.family](**base.pipeline.components, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = base.make_scheduler(configure(base).scheduler, SAMPLE.steps)
    noise = initial_noise(SEED, base.latent_shape(SIZE))[None].double()
    settings = {"num_inference_steps": SAMPLE.steps, "height": SIZE, "width": SIZE, "output_type": "latent", "return_dict": False}
    settings |= {"controlnet_conditioning_scale": scale}
    if base.denoiser_name == "unet":
        return pipeline(PROMPT, image=edges, latents=noise, guidance_scale=guidance_scale, **settings)[0]
    settings |= {"guidance_scale": EMBEDDED_GUIDANCE, "max_sequence_length": base.token_limit()}
    return unpack_latents(pipeline(PROMPT, control_image=edges, latents=pack_latents(noise), **settings)[0], *noise.shape[-2:])


def still_autoencoder(base) -> None:
    """Leave the autoencoder no spread: the stock FLUX pipeline draws a hint's latents from their distribution, and we take their mean."""
    last = base.pipeline.vae.encoder.conv_out
    with torch.no_grad():
        last.weight[len(last.weight) // 2 :] = 0
        last.bias[len(last.bias) // 2 :] = -100


@pytest.mark.parametrize(("kind", "guidance_scale"), [("sdxl", 1.0), ("sdxl", 3.0), ("sd15", 3.0), ("flux", 1.0)])
def test_strength_0_is_the_picture_of_the_stock_controlnet_pipeline(kind: str, guidance_scale: float):
    base = MAKERS[kind]()
    still_autoencoder(base)
    net = make_control(base)
    found = draw(base, {"a": control(base, net, make_edges())}, PLAIN, guidance_scale=guidance_scale)
    assert (found - draw_stock(base, net, make_edges(), guidance_scale)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", MAKERS)
def test_scale_0_is_no_control_and_other_edges_are_another_picture(kind: str):
    base = MAKERS[kind]()
    net = make_control(base)
    free, silent, held, other = (
        draw(base, controls, PLAIN)
        for controls in (
            {},
            {"a": control(base, net, make_edges(), 0.0)},
            {"a": control(base, net, make_edges())},
            {"a": control(base, net, make_edges(left=14))},
        )
    )
    assert torch.equal(free, silent)
    assert (held - free).abs().max() > 1e-2
    assert (held - other).abs().max() > 1e-4


def test_styled_rows_are_held_to_the_edges_like_the_others_and_the_net_sees_no_adapter():
    base = make_base()
    held = control(base, make_control(base), make_edges())
    sample = SAMPLE.model_copy(update={"steps": 1, "onset": 1000})
    request = ImageRequest(PROMPT, SEED, (StyleTerm(0, STYLED, 2.0),), "a")
    with random_styles(base) as adapters:
        sampler = Sampler(base, adapters, sample, controls={"a": held})
        x = initial_noise(SEED, base.latent_shape(SIZE))[None].double()
        with torch.inference_mode(), sampler.predicting([request]) as predictor:
            found = sampler.guide_step(predictor, [request], 0, x)
            told, t = base.encode_prompts(["", PROMPT, STYLED]), sampler.schedule.timesteps[:1]
            heard = {"encoder_hidden_states": told.tensors["states"][2:], "added_cond_kwargs": time_ids(told.tensors["pooled"][2:])}
            down, middle = held.net(x, t[0], controlnet_cond=held.hints, conditioning_scale=held.scale, return_dict=False, **heard)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            with adapters.routed(route_slots([0])):
                styled = base.denoiser(x, t[0], **heard, **residuals, return_dict=False)[0]
            uncond, cond = (base.predict(x, t[0].expand(1), told[[row]], SIZE, held) for row in (0, 1))
    expected = guide(uncond, cond, [styled], guidance_scale=sample.guidance_scale, strengths=[2.0])
    assert (found - expected).abs().max() < 1e-9


def time_ids(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"text_embeds": pooled, "time_ids": torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], dtype=pooled.dtype)}


def test_assets_drawn_together_are_each_held_to_their_own_edges():
    base = make_base()
    net = make_control(base)
    controls = {"a": control(base, net, make_edges()), "b": control(base, net, make_edges(left=14))}
    with random_styles(base) as adapters:
        requests = [ImageRequest(PROMPT, SEED, (StyleTerm(0, STYLED, 2.0),), origin) for origin in "ab"]
        together = draw(base, controls, *requests, adapters=adapters)
        alone = [draw(base, controls, one, adapters=adapters)[0] for one in requests]
    assert (together - torch.stack(alone)).abs().max() < 1e-9


def test_a_net_of_another_base_is_refused_with_the_remedy(tmp_path: Path):
    make_control(make_sd15()).save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"another base .* set entry\.control\.name"):
        load_control(make_base(), str(tmp_path))
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_control(make_base(), str(tmp_path / "gone"))


def test_edges_are_white_where_the_picture_changes_and_nowhere_else():
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).rectangle((16, 16, 47, 47), fill="black")
    edges = np.asarray(find_edges(picture, ControlConfig(name="net")))
    assert set(np.unique(edges)) == {0, 255}
    assert edges[30, 14:18].any()
    assert not edges[:12].any()
    assert not edges[20:44, 20:44].any()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


def enter(stock: Stock, folder: Path, **settings) -> dict:
    make_control(stock.night.base).save_pretrained(folder / "net")
    return {"way": "control", "control": {"name": str(folder / "net"), "licence": "mit"} | settings}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["noise", "timestep"])
def test_a_plan_says_the_evaluations_that_drawing_within_edges_takes(stock: Stock, tmp_path: Path, start: str):
    catalogue = write_catalogue(tmp_path, {"boat.png": open_drawing("sailboat", 40), "fox.png": open_drawing("fox", 40)})
    entry = enter(stock, tmp_path, start=start)
    run = stock.configure(catalogue, INK, "cow-face-gradient", entry=entry, sample={"relative_strengths": (0.0, 0.5, 1.0)})
    estimate = estimate_catalogue(run)
    plan = open_catalogue(run)
    pipeline = CataloguePipeline(run, plan.run_id, stock.night.base, stock.store, stock.night.scorer)
    assert [one.status for one in pipeline.stylize_shard(plan.shards[0])] == ["done", "done"]
    assert set(estimate.costs) == {"invert", "noise", "control"}
    assert pipeline.drawing.rows_computed == estimate.evaluations == 2 * estimate.costs["control"].total
    assert bool(estimate.costs["control"].inversion) == (start == "noise")


@pytest.mark.slow
def test_a_silent_net_from_the_timestep_draws_what_noise_draws(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"cat.png": open_drawing(size=64)})
    free = read_files(stock.stylize(catalogue, entry={"way": "noise"}))
    silent = read_files(stock.stylize(catalogue, entry=enter(stock, tmp_path, start="timestep", scale=0.0)))
    held = read_files(stock.stylize(catalogue, entry=enter(stock, tmp_path, start="timestep")))
    for key, picture in free.items():
        assert silent[key].tobytes() == picture.tobytes()
        assert held[key].tobytes() != picture.tobytes()


@pytest.mark.slow
def test_a_way_by_edges_without_a_net_or_a_licence_is_refused(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"cat.png": open_drawing(size=8)})
    with pytest.raises(ConfigError, match=r"set entry\.control\.name"):
        read_catalogue_config({"manifest": str(catalogue), "output": {"url": "out"}, "adapters": [INK], "entry": {"way": "control"}})
    with pytest.raises(LicenceError, match=r"entry\.control .* is 'no-derivatives'"):
        open_catalogue(stock.configure(catalogue, entry=enter(stock, tmp_path, licence="no-derivatives")))

"""Latents at the onset in the store: styled pictures start from them, with the same bits as from the noise."""

from pathlib import Path

import pytest
import torch
from styled_base import PROMPT, STYLED, styled
from tiny_base import SAMPLE

from pairlora.config import RunConfig
from pairlora.errors import CorruptObjectError
from pairlora.execution.drawing import Drawing, decode_latents, encode_latents
from pairlora.execution.progress import ignore
from pairlora.records import PlannedImage, PrefixRecord
from pairlora.sampling.sampler import ImageRequest, Sampler, Trajectory
from pairlora.store.run_store import RunStore

STEPS = SAMPLE.model_copy(update={"steps": 6})
START = Trajectory(PROMPT, 0)

# diffusers turns its tensors into arrays in a way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@pytest.fixture
def drawing(base, tmp_path):
    return make_drawing(base, tmp_path)


def make_drawing(base, folder: Path, **changed) -> Drawing:
    sample = STEPS.model_copy(update=changed).model_dump()
    settings = {"manifest": "m.csv", "output": {"url": str(folder)}, "base": {"name": "tiny"}, "sample": sample}
    return Drawing(RunConfig.model_validate(settings), base, RunStore(str(folder)), ignore)


def plan(*strengths: float, seed: int = 0) -> dict[str, PlannedImage]:
    return {
        f"image-{seed}-{strength}": PlannedImage(prompt=PROMPT, style_prompt=STYLED, seed=seed, strength=strength) for strength in strengths
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_come_back_bit_for_bit(dtype):
    latents = torch.randn((4, 8, 8), dtype=dtype)
    assert torch.equal(decode_latents(encode_latents(latents)), latents)
    assert decode_latents(encode_latents(latents)).dtype == dtype
    with pytest.raises(CorruptObjectError):
        decode_latents(b"no latents")


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_picture_from_stored_latents_has_the_bits_of_one_from_the_noise(base, adapters, scheduler):
    sampler = Sampler(base, adapters, STEPS.model_copy(update={"scheduler": scheduler}))
    stored = {start: decode_latents(encode_latents(latents)) for start, latents in sampler.draw_prefixes([START]).items()}
    assert stored
    assert torch.equal(sampler.draw_latents([styled(2.0)], prefixes=stored), sampler.draw_latents([styled(2.0)]))


def test_latents_from_another_batch_lead_to_the_same_picture(base, adapters):
    sampler = Sampler(base, adapters, STEPS)
    prefixes = sampler.draw_prefixes([START, Trajectory(PROMPT, 5), Trajectory("a flat icon of a cat", 0)])
    requests = [ImageRequest(PROMPT, 0), styled(1.0), styled(-2.0, slot=1), styled(2.0, seed=5)]
    assert torch.allclose(sampler.draw_latents(requests, prefixes=prefixes), sampler.draw_latents(requests), atol=1e-9)


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"])
def test_a_scheduler_that_remembers_earlier_steps_shares_no_latents(base, adapters, tmp_path, scheduler):
    drawing = make_drawing(base, tmp_path, scheduler=scheduler)
    assert Sampler(base, adapters, drawing.run.sample).draw_prefixes([START]) == {}
    drawing.draw_images(adapters, "f", plan(1.0), "shard")
    assert not drawing.store.list_done("prefix")
    assert len(drawing.store.list_done("image")) == 1


def test_the_next_pair_starts_from_the_latents_of_the_first(base, adapters, drawing):
    first = drawing.draw_images(adapters, "f", plan(0.0, 2.0), "shard")
    (prefix_id,) = drawing.store.list_done("prefix")
    record = drawing.store.read_marker("prefix", prefix_id, PrefixRecord)
    assert (record.prompt, record.seed, record.bytes) == (PROMPT, 0, (Path(drawing.store.url) / record.url).stat().st_size)
    again = make_drawing(base, Path(drawing.store.url)).draw_images(adapters, "g", plan(2.0), "shard")
    assert again["image-0-2.0"].tobytes() == first["image-0-2.0"].tobytes()
    assert drawing.store.list_done("prefix") == {prefix_id}


def test_stored_latents_are_what_a_picture_is_made_of(base, adapters, drawing):
    """Where they were not read, exchanging them would change nothing."""
    plain = drawing.draw_images(adapters, "f", plan(1.0), "shard")
    (prefix_id,) = drawing.store.list_done("prefix")
    drawing.store.drop_marker("prefix", prefix_id)
    drawing._store_prefix(prefix_id, START, torch.zeros(base.latent_shape(32), dtype=torch.float64))
    assert drawing.draw_images(adapters, "f", plan(1.0), "shard")["image-0-1.0"].tobytes() != plain["image-0-1.0"].tobytes()


def test_damaged_latents_are_drawn_again(base, adapters, drawing):
    plain = drawing.draw_images(adapters, "f", plan(1.0), "shard")
    (prefix_id,) = drawing.store.list_done("prefix")
    path = Path(drawing.store.url) / drawing.store.read_marker("prefix", prefix_id, PrefixRecord).url
    good = path.read_bytes()
    path.write_bytes(good[:-3])
    assert drawing.draw_images(adapters, "f", plan(1.0), "shard")["image-0-1.0"].tobytes() == plain["image-0-1.0"].tobytes()
    assert path.read_bytes() == good


@pytest.mark.parametrize("change", [{"guidance_scale": 2.0}, {"steps": 5}, {"onset": 600}, {"guidance_interval": (1000, 500)}])
def test_what_changes_the_latents_changes_their_identity(base, adapters, drawing, change):
    drawing.draw_images(adapters, "f", plan(1.0), "shard")
    make_drawing(base, Path(drawing.store.url), **change).draw_images(adapters, "f", plan(1.0), "shard")
    assert len(drawing.store.list_done("prefix")) == 2

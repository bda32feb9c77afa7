"""Time drawing against the published sampler, against plain guidance, and with nothing shared; one thread, in turn.

    python -m benchmarks.sampling_speed [--full] [embedded] [mid-size] [fan-out] [whole-fan-out] [pairs]

`fan-out` draws one of the six prompts, which share nothing but the first unconditional row of their seed; `whole-fan-out`
all of them. Only the ratios mean something. Ends with lines
`FIGURE sampling.<base>.<rows>rows.<threads>threads.<what> <value> <target> <ok|short>`; what they mean stands in
docs/benchmarks-sampling.md. `--full` takes more rounds, and several pairs in one batch.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from peft import LoraConfig

from benchmarks.figures import print_figure, state_figure
from benchmarks.models import MID_SIZE, make_mid_size_base, time_in_turn
from pairlora.adapters import DualAdapters, Role
from pairlora.bases import load_base
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig, TrainConfig
from pairlora.presets import PRESETS
from pairlora.sampling.guidance import guide
from pairlora.sampling.row_counts import count_rows
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, initial_noise
from pairlora.sampling.trajectories import Timing
from pairlora.training.packs import fresh_adapters

PROMPTS = [f"a flat icon of a {what}, centred on white" for what in ("fox", "cat", "ship", "cup", "tree", "key")]
SHARES = (0.5, 1.0, 1.25, 1.5)
PAIRS = 8
RANK = {"embedded": 16, "mid-size": 16}
"""The recipe's rank; at a fifth of SDXL's widths about a fifth of its 64."""


def name_figures(base: str, rows: float) -> str:
    """The beginning of figures' names: what they were measured on; rows of our drawing."""
    return f"sampling.{base}.{rows:g}rows.{torch.get_num_threads()}threads"


def make_setting(name: str) -> tuple[Callable[[], SDXLBase], SampleConfig]:
    """A maker of the base, and how it is drawn with: a fifth of the steps lies before the onset, as in the paper."""
    if name == "embedded":
        return load_base, SampleConfig.model_validate(PRESETS["embedded"]["sample"])
    return make_mid_size_base, SampleConfig(steps=10, size=MID_SIZE)


@contextmanager
def styles_on(base: SDXLBase, rank: int, slots: int = 1) -> Iterator[DualAdapters]:
    """Random adapters: what they cost does not depend on what they have learnt."""
    train = TrainConfig(content_rank=1, style_rank=rank)
    with fresh_adapters(base, train, slots) as adapters:
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data.normal_(std=0.01)
        yield adapters


def request(prompt: str, strength: float, *, seed: int = 0, slot: int = 0) -> ImageRequest:
    return ImageRequest(prompt, seed, (StyleTerm(slot, f"{prompt}, in ink", strength),))


class PublishedSampler:
    """The published order of work: in every step a call for [∅, prompt] with PEFT's adapters off, then one for the style with them on."""

    def __init__(self, base: SDXLBase, sample: SampleConfig, rank: int):
        self.base, self.sample = base, sample
        names = base.attention_projections()
        base.denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights=False))
        base.denoiser.requires_grad_(False)

    @torch.inference_mode()
    def draw_latents(self, wanted: ImageRequest) -> torch.Tensor:
        (style,) = wanted.styles
        scheduler = self.base.make_scheduler(self.sample.scheduler, self.sample.steps)
        told = self.base.encode_prompts(["", wanted.prompt, style.prompt])
        latents = initial_noise(wanted.seed, self.base.latent_shape(self.sample.size))[None] * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.scale_model_input(latents, t)
            self.base.denoiser.disable_adapters()
            uncond, cond = self.base.predict(x.expand(2, -1, -1, -1), t.expand(2), told[slice(0, 2)], self.sample.size).chunk(2)
            self.base.denoiser.enable_adapters()
            styled = self.base.predict(x, t.expand(1), told[slice(2, 3)], self.sample.size)
            eps = guide(uncond, cond, [styled], guidance_scale=self.sample.guidance_scale, strengths=[style.strength])
            latents = scheduler.step(eps, t, latents, return_dict=False)[0]
        return latents


def compare_single_pictures(name: str, rounds: int) -> None:
    """One guided picture at batch 1: against the published order of work, and against plain guidance without adapters."""
    make_base, sample = make_setting(name)
    base, plain_base = make_base(), make_base()
    published = PublishedSampler(make_base(), sample, RANK[name])
    plain = Sampler(plain_base, None, sample)
    wanted = request(PROMPTS[0], sample.guidance_scale)
    with styles_on(base, RANK[name]) as adapters:
        ours, unremembered = Sampler(base, adapters, sample), Sampler(base, adapters, sample, memory_bytes=0)
        times = time_in_turn(
            {
                "published": lambda: published.draw_latents(wanted),
                "guided": lambda: ours.draw_latents([wanted]),
                "guided without memory": lambda: unremembered.draw_latents([wanted]),
                "plain": lambda: plain.draw_latents([replace(wanted, styles=())]),
            },
            rounds=rounds,
        )
        rows = count_rows([wanted], ours.schedule.timing)
    steps = sample.steps
    print(f"{name} base, 1 thread, {steps} steps: rows published {3 * steps}, ours {rows}, plain {2 * steps}; seconds {_shown(times)}")
    head = name_figures(name, rows)
    print_figure(f"{head}.published_over_guided_time", times["published"] / times["guided"], 1.4)
    print_figure(f"{head}.guided_over_plain_time", times["guided"] / times["plain"], 1.5, higher=False)
    state_figure(f"{head}.without_memory_over_guided_time", times["guided without memory"] / times["guided"])


def plan_fan_out(prompts: Sequence[str], scale: float, pairs: int) -> list[list[ImageRequest]]:
    """What each pair asks for: all strengths of all prompts, and from the first pair the unstyled pictures too."""
    unstyled = [ImageRequest(prompt, 0) for prompt in prompts]
    wanted = [[request(prompt, share * scale, slot=slot) for prompt in prompts for share in SHARES] for slot in range(pairs)]
    return [wanted[0] + unstyled, *wanted[1:]]


def count_fan_out(plan: list[list[ImageRequest]], timing: Timing) -> int:
    """Rows by the closed form, pair after pair, with the prefixes of the first."""
    known = {one.prefix for one in plan[0]}
    return count_rows(plan[0], timing) + sum(count_rows(wanted, timing, known=known) for wanted in plan[1:])


def draw_fan_out(sampler: Sampler, plan: list[list[ImageRequest]]) -> None:
    """The pictures pair by pair, as a shard draws them."""
    prefixes = sampler.draw_prefixes(list({one.prefix: None for one in plan[0]}))
    for wanted in plan:
        sampler.draw_latents(wanted, prefixes=prefixes)


def draw_unshared(sampler: Sampler, prompts: Sequence[str], pairs: int) -> None:
    """The same pictures, each with a seed of its own, so that no two rows are equal; unstyled ones once a pair."""
    scale = sampler.sample.guidance_scale
    places = [(prompt, share) for prompt in prompts for share in (0.0, *SHARES)]
    for slot in range(pairs):
        sampler.draw_latents([request(prompt, share * scale, slot=slot, seed=seed) for seed, (prompt, share) in enumerate(places)])


def compare_fan_out(prompts: Sequence[str], rounds: int) -> None:
    """Pairs x prompts x strengths and the unstyled pictures: rows by the closed form, time against nothing shared."""
    base, sample = load_base(), make_setting("embedded")[1]
    with styles_on(base, RANK["embedded"], PAIRS) as adapters:
        shared, unshared = Sampler(base, adapters, sample), Sampler(base, adapters, sample, memory_bytes=0)
        plan = plan_fan_out(prompts, sample.guidance_scale, PAIRS)
        actions = {"unshared": lambda: draw_unshared(unshared, prompts, PAIRS), "shared": lambda: draw_fan_out(shared, plan)}
        times = time_in_turn(actions, rounds=rounds)
    rows, alone = (sampler.rows_computed / (rounds + 1) for sampler in (shared, unshared))
    expected = count_fan_out(plan, shared.schedule.timing)
    print(f"fan-out of {PAIRS} pairs, {len(prompts)} prompts, {len(SHARES)} strengths and the unstyled pictures, {sample.steps} steps")
    print(f"embedded base, 1 thread: {alone:g} rows unshared, {rows:g} shared, closed form {expected}; seconds {_shown(times)}")
    if rows != expected:
        raise SystemExit(f"{rows} rows were computed, {expected} are due by the closed form")
    head = f"{name_figures('embedded', rows)}.fan_out"
    print_figure(f"{head}.unshared_over_shared_rows", alone / rows, 1.9)
    print_figure(f"{head}.unshared_over_shared_time", times["unshared"] / times["shared"], 1.9)


def compare_pairs(seeds: Sequence[int]) -> None:
    """Four pairs with one prompt and three strengths, one after another and in one batch, their prefixes known."""
    base, sample = load_base(), make_setting("embedded")[1]
    with styles_on(base, RANK["embedded"], 4) as adapters:
        sampler = Sampler(base, adapters, sample)
        prefixes = sampler.draw_prefixes([ImageRequest(PROMPTS[0], seed).prefix for seed in seeds])
        pairs = [
            [request(PROMPTS[0], share * sample.guidance_scale, slot=slot, seed=seed) for seed in seeds for share in SHARES[:3]]
            for slot in range(4)
        ]
        times = time_in_turn(
            {
                "apart": lambda: [sampler.draw_latents(pair, prefixes=prefixes) for pair in pairs],
                "together": lambda: sampler.draw_latents([one for pair in pairs for one in pair], prefixes=prefixes),
            },
            rounds=3,
        )
    ratio = times["apart"] / times["together"]
    print(f"4 pairs of {len(pairs[0])} pictures, embedded base, 1 thread: seconds {_shown(times)}, ratio {ratio:.2f}")


def _shown(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.3f}" for name, seconds in times.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="embedded, mid-size, fan-out, whole-fan-out, pairs")
    parser.add_argument("--full", action="store_true", help="more rounds, and several pairs in one batch")
    given = parser.parse_args()
    torch.set_num_threads(1)
    few, many = (3, 7) if given.full else (1, 5)
    parts = {
        "embedded": lambda: compare_single_pictures("embedded", many),
        "mid-size": lambda: compare_single_pictures("mid-size", few),
        "fan-out": lambda: compare_fan_out(PROMPTS[:1], few),
        "whole-fan-out": lambda: compare_fan_out(PROMPTS, few),
        "pairs": lambda: [compare_pairs(range(seeds)) for seeds in (1, 4)],
    }
    usual = ["embedded", "mid-size", "fan-out"] + (["pairs"] if given.full else [])
    for part in given.parts or usual:
        parts[part]()


if __name__ == "__main__":
    main()

"""Time and memory of the training against the published schedule in PEFT's layers, against K packed pairs, and against the base alone.

    python -m benchmarks.training_speed [--full] [embedded | mid-size ...]

Everything that is compared takes turns in one run on one thread; only the ratios mean something. Ends each part with lines
`FIGURE train.<base>.<rows>rows.<draws>draws.<threads>threads.<what> <value> <target> <ok|short>`; rows are those of our forward.
`--full` takes more rounds, and packs of 16.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from benchmarks.figures import print_figure, state_figure
from benchmarks.models import MID_SIZE, make_mid_size_base, time_in_turn
from benchmarks.published import PublishedTraining
from pairlora.adapters import Role
from pairlora.adapters.products import frozen_products
from pairlora.bases import load_base
from pairlora.bases.interface import Base
from pairlora.config import TrainConfig
from pairlora.presets import PRESETS
from pairlora.training.packs import PackTraining, TrainingPair, draw_step, open_pack

PROMPT = "a flat icon of a fox, centred on white"
PUBLISHED = TrainConfig()
MOST_ROWS = 128
"""Rows of the largest forward that is measured."""
WARM_UPS = 1
"""Steps at the beginning of a turn that do not count: in a training, the step before was the same training's, not another's."""


@dataclass(frozen=True)
class Effort:
    """How long is measured: rounds of each part, and the sizes of packs."""

    rounds: int = 3
    pack_rounds: int = 2
    packs: tuple[int, ...] = (1, 2, 4, 8)


FULL = Effort(rounds=5, pack_rounds=3, packs=(1, 2, 4, 8, 16))


@dataclass(frozen=True)
class Subject:
    """A base to measure on, the recipe that fits it, and what K = 8 shall gain on it."""

    name: str
    make: Callable[[], Base]
    recipe: TrainConfig
    pack_gain: float
    repeats: int
    """What is quick is measured so many times as often, since a moment disturbs it more."""


SUBJECTS = {
    "embedded": Subject("embedded", load_base, TrainConfig.model_validate(PRESETS["embedded"]["train"]), 2.5, 4),
    "mid-size": Subject("mid-size", make_mid_size_base, TrainConfig(content_rank=16, style_rank=16, resolution=MID_SIZE), 1.8, 1),
}


def name_figures(subject: Subject, rows: int, draws: int) -> str:
    """The beginning of figures' names: what they were measured on."""
    return f"train.{subject.name}.{rows}rows.{draws}draws.{torch.get_num_threads()}threads"


def make_pairs(count: int, size: int) -> list[TrainingPair]:
    """Pairs of plain pictures: training costs the same whatever they show."""
    colours = ("white", "navy")
    content, style = (Image.new("RGB", (size, size), colour) for colour in colours)
    return [TrainingPair(str(index), content, style, PROMPT, f"{PROMPT}, in ink") for index in range(count)]


def both_phases(training: PackTraining) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of the content phase and one of the second phase; each leaves the pack as fit for the next."""
    return lambda: training.take_step(0), lambda: training.take_step(training.train.content_steps)


def weigh_schedule(content: float, both: float, train: TrainConfig = PUBLISHED) -> float:
    """Seconds of a whole schedule from those of a step of each phase."""
    return train.content_steps * content + (train.steps - train.content_steps) * both


# Memory


@contextmanager
def measured_bytes(base: Base, kept: list[int]) -> Iterator[None]:
    """Append the bytes that the block's forwards keep for their backward passes: each storage once, parameters not counted."""
    known = {parameter.untyped_storage().data_ptr() for parameter in base.denoiser.parameters()}
    seen: dict[int, Tensor] = {}  # keeps them alive, so that no address comes twice

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in known:
            seen[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    kept.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))


def size_of(parameters: list[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def measure_published_memory(published: PublishedTraining) -> tuple[int, int]:
    """Bytes of both passes of a step, and of the larger one: kept activations and the gradients of A and B."""
    passes = []
    for role in Role:
        published.activate(role)
        kept: list[int] = []
        with measured_bytes(published.base, kept):
            loss = published.compute_loss(role, 0)
        loss.backward()
        published.optimizers[role].zero_grad()
        passes.append(kept[0] + size_of(published.parameters(role)))
    return sum(passes), max(passes)


def measure_memory(base: Base, training: PackTraining) -> int:
    """Bytes of a step of the second phase: kept activations and the gradients of B."""
    kept: list[int] = []
    with measured_bytes(base, kept):
        losses = training.examples.losses(training.adapters, training.alive, list(Role), 0, training.train.draws)
    torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
    for optimizer in training.optimizers.values():
        for gradients in optimizer.gradients:
            gradients.zero_()
    return kept[0] + sum(size_of(training.adapters.parameters(role)) for role in Role)


# Parts


class BaseAlone:
    """Forward and backward of a base without adapters, on rows of content and style; the gradient begins at the first adapted layer."""

    def __init__(self, base: Base, size: int):
        self.base, self.size = base, size
        self.conditions = base.encode_prompts([PROMPT, PROMPT])
        self.draws = draw_step("bare", 0, 2, base.latent_shape(size), base.timesteps)
        self.first = base.denoiser.get_submodule(base.attention_projections()[0])

    def take_step(self) -> None:
        handle = self.first.register_forward_hook(lambda *call: call[2].requires_grad_())
        self.base.predict(self.draws.noise, self.draws.timesteps, self.conditions, self.size).square().mean().backward()
        handle.remove()


def compare_with_published(subject: Subject, effort: Effort) -> None:
    """One pair, one draw, second phase (a), and a whole schedule of packed pairs (b), against PEFT's layers."""
    train = subject.recipe.model_copy(update={"draws": 1, "content_steps": 1, "steps": 2})
    pairs = make_pairs(8, train.resolution)
    plain = PublishedTraining(subject.make(), pairs[0], train)
    encoding = PublishedTraining(subject.make(), pairs[0], train, encode=True)
    with ExitStack() as stack:
        alone_base, packed_base, small_base = subject.make(), subject.make(), subject.make()
        alone = stack.enter_context(open_pack(alone_base, pairs[:1], train))
        packed = stack.enter_context(open_pack(packed_base, pairs, train))
        small = stack.enter_context(open_pack(small_base, pairs[:1], train, recompute=True))
        actions = dict(zip(("alone.content", "alone.both"), both_phases(alone), strict=True))
        actions |= dict(zip(("packed.content", "packed.both"), both_phases(packed), strict=True))
        actions |= {"recomputed.both": both_phases(small)[1]}
        for name, published in (("plain", plain), ("encoding", encoding)):
            actions |= {f"{name}.content": lambda published=published: published.take_pass(Role.CONTENT, 0)}
            actions |= {f"{name}.both": lambda published=published: published.take_step(0)}
        seconds = time_in_turn(actions, rounds=effort.rounds * subject.repeats, warm_ups=WARM_UPS)
        passes, peak = measure_published_memory(plain)
        ours, recomputed = measure_memory(alone_base, alone), measure_memory(small_base, small)
    print(f"a: {subject.name} base, 1 draw, rank {train.style_rank}, {torch.get_num_threads()} thread; seconds {_round(seconds)}")
    print(f"   bytes: published {passes:,} in both passes, {peak:,} in the larger; ours {ours:,}, recomputed {recomputed:,}")
    head = name_figures(subject, 2, 1)
    print_figure(f"{head}.step_over_published", seconds["plain.both"] / seconds["alone.both"], 2.0)
    print_figure(f"{head}.step_over_published_with_encode", seconds["encoding.both"] / seconds["alone.both"], 2.5)
    print_figure(f"{head}.memory_of_both_passes", ours / passes, 0.6, higher=False)
    print_figure(f"{head}.memory_of_larger_pass", ours / peak, 0.6, higher=False)
    print_figure(f"{head}.memory_of_larger_pass_recomputed", recomputed / peak, 0.6, higher=False)
    whole = {name: weigh_schedule(seconds[f"{name}.content"], seconds[f"{name}.both"]) for name in ("plain", "encoding", "packed")}
    head = name_figures(subject, 16, 1)
    print_figure(f"{head}.schedule_of_8_packed_over_published", 8 * whole["plain"] / whole["packed"], 4.0)
    print_figure(f"{head}.schedule_of_8_packed_over_published_with_encode", 8 * whole["encoding"] / whole["packed"], 4.0)


def compare_packs(subject: Subject, draws: int, effort: Effort, target: float) -> None:
    """Pairs per hour and memory of K packed pairs, second phase (b)."""
    train = subject.recipe.model_copy(update={"draws": draws, "content_steps": 0})
    packs = [count for count in effort.packs if 2 * draws * count <= MOST_ROWS]
    pairs = make_pairs(max(packs), train.resolution)
    with ExitStack() as stack:
        bases = {count: subject.make() for count in packs}
        trainings = {count: stack.enter_context(open_pack(bases[count], pairs[:count], train)) for count in packs}
        steps = {str(count): lambda training=training: training.take_step(0) for count, training in trainings.items()}
        seconds = time_in_turn(steps, rounds=effort.pack_rounds * subject.repeats, warm_ups=WARM_UPS)
        memory = {count: measure_memory(bases[count], training) for count, training in trainings.items()}
    print(f"b: {subject.name} base, {draws} draws, {torch.get_num_threads()} thread, second phase")
    for count in packs:
        rate, gain = count / seconds[str(count)], count * seconds["1"] / seconds[str(count)]
        print(f"   K = {count:2}: {2 * draws * count:3} rows, {seconds[str(count)]:.3f} s, {3600 * rate:,.0f} pair steps an hour, "
              f"{gain:.2f} times K = 1, {memory[count] / 1e6:,.0f} MB")  # fmt: skip
    gains = {count: count * seconds["1"] / seconds[str(count)] for count in packs if count <= 8}
    head = name_figures(subject, 2 * draws * max(gains), draws)
    print_figure(f"{head}.packed_{max(gains)}_over_alone", gains[max(gains)], target)
    best = max(gains, key=lambda count: gains[count])
    print_figure(f"{name_figures(subject, 2 * draws * best, draws)}.best_pack_{best}_over_alone", gains[best], target)


def compare_with_base(subject: Subject, effort: Effort) -> None:
    """A joint step against forward and backward of the frozen base alone on the same rows (d), and where the rest goes.

    The base alone is measured as it comes, and with the products of frozen weights that the training puts in place.
    """
    train = subject.recipe.model_copy(update={"draws": 1, "content_steps": 0})
    with ExitStack() as stack:
        stock, lean = (BaseAlone(subject.make(), train.resolution) for _ in range(2))
        stack.enter_context(frozen_products(lean.base.denoiser))
        training = stack.enter_context(open_pack(subject.make(), make_pairs(1, train.resolution), train))
        actions = {"base": stock.take_step, "base with frozen products": lean.take_step, "step": lambda: training.take_step(0)}
        seconds = time_in_turn(actions, rounds=effort.rounds * subject.repeats, warm_ups=WARM_UPS)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            training.take_step(0)
    print(f"d: {subject.name} base, 2 rows, {torch.get_num_threads()} thread; seconds {_round(seconds)}")
    head = name_figures(subject, 2, 1)
    print_figure(f"{head}.step_over_base_alone", seconds["step"] / seconds["base"], 1.2, higher=False)
    state_figure(f"{head}.step_over_base_with_frozen_products", seconds["step"] / seconds["base with frozen products"])
    for event in sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)[:14]:
        print(f"   {event.self_cpu_time_total / 1e3:8.2f} ms  {event.count:6}  {event.key[:70]}")


def _round(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", default=list(SUBJECTS), help=", ".join(SUBJECTS))
    parser.add_argument("--full", action="store_true", help="more rounds, and packs of 16")
    given = parser.parse_args()
    torch.set_num_threads(1)
    effort = FULL if given.full else Effort()
    for subject in (SUBJECTS[name] for name in given.bases):
        compare_with_published(subject, effort)
        compare_packs(subject, 1, effort, subject.pack_gain)
        if subject.recipe.draws > 1:
            compare_packs(subject, subject.recipe.draws, effort, 1.4)
        compare_with_base(subject, effort)


if __name__ == "__main__":
    main()

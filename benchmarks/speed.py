"""Time sampling on the embedded base, side by side in one run; only the ratios mean something.

    python benchmarks/speed.py

Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from pairlora.adapters import Role
from pairlora.bases import load_base
from pairlora.config import PRESETS, SampleConfig, TrainConfig
from pairlora.sampling import ImageRequest, Sampler, StyleTerm
from pairlora.training import fresh_adapters

ROUNDS = 5
PROMPT = "a flat icon of a fox, centred on white"


def time_in_turn(**actions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each action; the actions take turns, so that a slow moment hits them alike."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def time_sampling(base, train: TrainConfig, sample: SampleConfig) -> dict[str, float]:
    """Seconds of one unstyled and one guided picture, and of four strengths apart and together."""
    with fresh_adapters(base, train, 1) as adapters:
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data.normal_(std=0.01)
        sampler = Sampler(base, adapters, sample)
        styled = [ImageRequest(PROMPT, 0, (StyleTerm(0, f"{PROMPT}, in ink", strength),)) for strength in (1.0, 2.0, 3.0, 4.0)]
        sampler.draw_latents([styled[0]])
        return time_in_turn(
            plain=lambda: sampler.draw_latents([replace(styled[0], styles=())]),
            guided=lambda: sampler.draw_latents([styled[0]]),
            apart=lambda: [sampler.draw_latents([request]) for request in styled],
            together=lambda: sampler.draw_latents(styled),
        )


def print_figure(name: str, value: float, target: float, higher: bool = True) -> None:
    well = value >= target if higher else value <= target
    print(f"FIGURE {name} {value:.2f} {'>=' if higher else '<='}{target:g} {'ok' if well else 'short'}")


def main() -> None:
    torch.set_num_threads(1)
    base = load_base("embedded")
    train = TrainConfig.model_validate(PRESETS["embedded"]["train"])
    sample = SampleConfig.model_validate(PRESETS["embedded"]["sample"])
    times = time_sampling(base, train, sample)
    print(f"embedded base, 1 thread; pictures {times}")
    print_figure("bench.guided_over_plain_time", times["guided"] / times["plain"], 1.5, higher=False)
    print_figure("bench.four_strengths_sharing_ratio", times["apart"] / times["together"], 1.2)


if __name__ == "__main__":
    main()

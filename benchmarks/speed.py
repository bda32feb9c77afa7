"""Time training on the embedded base, side by side in one run; only the ratios mean something.

    python benchmarks/speed.py

Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image

from pairlora.bases import load_base
from pairlora.config import PRESETS, TrainConfig
from pairlora.training import PackExamples, PackTraining, TrainingPair, fresh_adapters

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


def time_step(base, count: int, train: TrainConfig) -> float:
    """Median seconds of a joint step of a pack of `count` pairs."""
    picture = Image.new("RGB", (64, 64), "white")
    pairs = [TrainingPair(str(index), picture, picture, PROMPT, f"{PROMPT}, in ink") for index in range(count)]
    with fresh_adapters(base, train, count) as adapters:
        training = PackTraining(PackExamples(base, pairs), adapters, train)
        training.take_step(0)
        return time_in_turn(step=lambda: training.take_step(1))["step"]


def print_figure(name: str, value: float, target: float, higher: bool = True) -> None:
    well = value >= target if higher else value <= target
    print(f"FIGURE {name} {value:.2f} {'>=' if higher else '<='}{target:g} {'ok' if well else 'short'}")


def main() -> None:
    torch.set_num_threads(1)
    base = load_base("embedded")
    train = TrainConfig.model_validate(PRESETS["embedded"]["train"] | {"content_steps": 0, "draws": 1})
    alone, packed = time_step(base, 1, train), time_step(base, 4, train)
    print(f"embedded base, 1 thread, 1 draw: step alone {alone:.3f} s, pack of 4 {packed:.3f} s")
    print_figure("bench.pack4_pairs_per_hour_ratio", 4 * alone / packed, 1.5)


if __name__ == "__main__":
    main()

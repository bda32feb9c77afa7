"""What every training here shares: a schedule, a moving average, checkpoints that resume, and a line of progress."""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


def make_parser(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """The options that every training has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, required=True, help="folder for arrays and checkpoints")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16: twice as fast where the processor has avx512_bf16")
    return parser


class TrainingLoop:
    """Run `step_loss(step) -> loss` with AdamW, warm-up, cosine decay and an exponential moving average.

    State lies in `checkpoint`; a loop that is started again goes on where the last one saved.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        trained: Iterable[nn.Parameter],
        checkpoint: Path,
        *,
        steps: int,
        learning_rate: float,
        warmup: int = 50,
        average: float = 0.995,
        weight_decay: float = 1e-3,
        bf16: bool = False,
    ):
        self.modules = modules
        self.parameters = list(trained)
        self.checkpoint = checkpoint
        self.steps = steps
        self.learning_rate = learning_rate
        self.warmup = warmup
        self.average = average
        self.bf16 = bf16
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.step = 0
        self.losses: list[tuple[int, float]] = []
        if checkpoint.exists():
            self._load()

    def run(self, step_loss: Callable[[int], Tensor], *, log_every: int = 50, save_every: int = 200) -> None:
        started, recent = time.monotonic(), []
        first = self.step
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * self._schedule()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = step_loss(self.step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            rate = min(self.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, [parameter.detach() for parameter in self.parameters], 1 - rate)
            recent.append(loss.item())
            self.step += 1
            if self.step % log_every == 0:
                mean, recent = sum(recent) / len(recent), []
                self.losses.append((self.step, mean))
                seconds = (time.monotonic() - started) / (self.step - first)
                print(f"step {self.step}/{self.steps} loss {mean:.5f} {seconds:.2f} s/step", flush=True)
            if self.step % save_every == 0 or self.step == self.steps:
                self._save()

    def _schedule(self) -> float:
        if self.step < self.warmup:
            return (self.step + 1) / self.warmup
        progress = (self.step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))

    def use_averages(self) -> None:
        """Put the moving average into the modules, for saving what will be shipped."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.averages)

    def _save(self) -> None:
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.averages = state["averages"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"]

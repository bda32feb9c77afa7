"""Draw the loss curves of the model card from the checkpoints of the trainings."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

TITLES = {
    "autoencoder.all": "autoencoder",
    "autoencoder.decoder": "… decoder alone",
    "autoencoder.lines": "… more of fine lines",
    "text_encoders": "text encoders",
    "denoiser": "denoiser",
    "clip": "CLIP of the evaluation",
}


def read_losses(checkpoint: Path) -> list[tuple[int, float]]:
    """Step and mean loss of the steps before it, as a training wrote them down."""
    return torch.load(checkpoint, weights_only=True)["losses"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the checkpoints")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    figure, panels = plt.subplots(2, 3, figsize=(10, 5), layout="constrained")
    for panel, (name, title) in zip(panels.flat, TITLES.items(), strict=True):
        panel.plot(*zip(*read_losses(arguments.work / f"{name}.checkpoint"), strict=True), linewidth=1.2, color="#3355aa")
        panel.set(title=title, xlabel="step", yscale="log")
        panel.grid(which="both", linewidth=0.3)
    figure.savefig(arguments.out / "embedded-losses.png", dpi=110)


if __name__ == "__main__":
    main()

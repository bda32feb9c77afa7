"""Put the trained parts together as a stock SDXL pipeline and a CLIP, in fp16 files that load as float32."""

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedded_base.train_autoencoder import make_autoencoder
from embedded_base.train_denoiser import make_denoiser, make_scheduler


def load_pipeline(work: Path) -> StableDiffusionXLPipeline:
    """The pipeline from what the trainings left, float32."""
    vae, unet = make_autoencoder(), make_denoiser()
    vae.load_state_dict(torch.load(work / "autoencoder.lines.pt", weights_only=True))
    denoiser = torch.load(work / "denoiser.pt", weights_only=True)
    unet.load_state_dict(denoiser["weights"])
    vae.register_to_config(scaling_factor=denoiser["scaling"], force_upcast=False)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(work / "text_encoder_2"),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        add_watermarker=False,
    )


def save_half(module: nn.Module, folder: Path) -> None:
    """fp16 weights; the config says float32, so that every loader brings all parts up in one dtype."""
    module.half().save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "dtype" in config or "torch_dtype" in config:
        config.pop("torch_dtype", None)
        config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("pairlora/bases/embedded"))
    arguments = parser.parse_args()
    pipeline = load_pipeline(arguments.work)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("scheduler", "tokenizer", "tokenizer_2"):
        getattr(pipeline, name).save_pretrained(arguments.out / name)
    for name in ("vae", "text_encoder", "text_encoder_2", "unet"):
        save_half(getattr(pipeline, name), arguments.out / name)
    pipeline.save_config(arguments.out)
    clip = arguments.out / "clip"
    save_half(CLIPModel.from_pretrained(arguments.work / "clip"), clip)
    CLIPTokenizer.from_pretrained(arguments.work / "clip_tokenizer").save_pretrained(clip)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(clip)
    megabytes = sum(path.stat().st_size for path in arguments.out.rglob("*.safetensors")) / 1e6
    print(f"{arguments.out}: {megabytes:.1f} MB")


if __name__ == "__main__":
    main()

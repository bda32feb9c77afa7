"""Recipes by base, which fill what a configuration leaves open."""

from typing import Any

HUB_IDS = {
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "black-forest-labs/FLUX.1-dev": "flux",
}
"""Hub ids that a named base stands for."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "embedded": {
        "train": {
            "content_rank": 16,
            "style_rank": 16,
            "steps": 120,
            "content_steps": 40,
            "learning_rate": 1.5e-3,
            "draws": 8,
            "resolution": 64,
        },
        "sample": {
            "steps": 15,
            "guidance_scale": 2.5,
            "relative_strengths": (0.0, 0.25, 0.375, 0.5, 1.0),
            "lora_weights": (0.8,),
            "size": 64,
            "batch_rows": 48,
        },
        "evaluate": {
            "clip": "embedded",
            "clip_revision": None,
            "least_progress": 0.1,
            "least_pace": 0.75,
            "accept_spill": 0.25,
            "reject_spill": 0.29,
            "accept_text_loss": 0.75,
            "reject_text_loss": 0.9,
        },
    },
    "sdxl": {
        "base": {"revision": "462165984030d82259a11f4367a4eed129e94a7b", "dtype": "bfloat16"},
        "execution": {"pack_size": 1},
    },
    "sd15": {
        "base": {"revision": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", "dtype": "bfloat16"},
        "sample": {"guidance_scale": 7.5, "size": 512},
        "execution": {"pack_size": 1},
    },
    "flux": {
        "base": {"revision": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21", "dtype": "bfloat16"},
        "train": {
            "content_rank": 32,
            "style_rank": 32,
            "steps": 1500,
            "content_steps": 750,
            "weight_decay": 0.01,
            "gradient_clip": 1.0,
        },
        # the first 10 of 50 steps at 1024 pixels have timesteps 1000 to 935.0, the next 926.7
        "sample": {"guidance_scale": 4.0, "onset": 930},
        "execution": {"pack_size": 1},
    },
}
"""Recipes by base: the embedded one was chosen on two validation pairs (docs/log.md); SDXL's and FLUX's are the published ones.

For SD 1.5 none was published: it takes SDXL's training, with the size and guidance scale that its own pipeline has.
"""

"""What a drawn picture says of itself: its parameters as A1111 and ComfyUI read them, and all of its origin as JSON. Unsigned."""

import json
from importlib.metadata import version

from pairlora.records import ImageRecord, Record

PARAMETERS, PROVENANCE = "parameters", "pairlora"
"""Keys of the PNG's text chunks."""

SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
"""A1111's names of diffusers' schedulers; any other keeps its own."""


class Origin(Record):
    """What a picture was drawn with, as far as its record does not say it."""

    base: str
    base_digest: str
    scheduler: str
    steps: int
    size: int


def describe_picture(record: ImageRecord, origin: Origin) -> dict[str, str]:
    """The text chunks of a picture's PNG; the bytes of `record` are not looked at, since they follow from these."""
    return {PARAMETERS: write_parameters(record, origin), PROVENANCE: write_provenance(record, origin)}


def write_parameters(record: ImageRecord, origin: Origin) -> str:
    """The prompt, and a line of settings below it, in the layout of A1111, which has no line for an empty negative prompt.

    With style guidance the prompt is the one in the style, and the strength stands beside the settings: A1111 has no such dial.
    """
    settings: dict[str, str | int] = {
        "Steps": origin.steps,
        "Sampler": SAMPLERS.get(origin.scheduler, origin.scheduler),
        "CFG scale": f"{record.guidance_scale:g}",
        "Seed": record.seed,
        "Size": f"{origin.size}x{origin.size}",
        "Model": origin.base,
    }
    if record.lora_weight is not None:
        settings["LoRA weight"] = f"{record.lora_weight:g}"
    elif record.strength:
        settings["Style strength"] = f"{record.strength:g}"
    if not record.is_unstyled:
        settings["Adapter"] = record.fingerprint[:12]
    settings["Version"] = f"pairlora {version('pairlora')}"
    prompt = " ".join((record.style_prompt or record.prompt).split())
    return f"{prompt}\n" + ", ".join(f"{name}: {quote_setting(str(value))}" for name, value in settings.items())


def quote_setting(value: str) -> str:
    """A value as A1111 splits the line: as JSON where it holds what would split it."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value


def write_provenance(record: ImageRecord, origin: Origin) -> str:
    """Everything that decides the picture, as JSON with sorted keys."""
    facts = record.model_dump(
        include={"image_id", "prompt", "style_prompt", "seed", "strength", "lora_weight", "guidance_scale", "profile"}
    )
    facts |= {"adapter": record.fingerprint, **origin.model_dump(), "pairlora": version("pairlora")}
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)

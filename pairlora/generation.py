"""Pictures from adapters that are there: of a store, a file or any trainer's LoRA, one or several blended, with a contact sheet."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pairlora.adapters.files import derive_template, pick_facts
from pairlora.adapters.foreign import map_to_base, read_lora
from pairlora.adapters.masters import read_adapter
from pairlora.adapters.routing import Role
from pairlora.adapters.stacking import styles_attached
from pairlora.bases.interface import Base
from pairlora.config import SampleConfig
from pairlora.errors import AdapterFileError, ConfigError
from pairlora.execution.progress import Listener, ignore
from pairlora.identity import describe_profile, digest_record
from pairlora.images import encode_png
from pairlora.provenance import PROVENANCE, Origin, describe_picture
from pairlora.records import AdapterRecord, ImageRecord, Record
from pairlora.release.exporting import find_releases
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.store.keys import IN_STORE
from pairlora.store.objects import open_objects
from pairlora.store.run_store import RunStore
from pairlora.styles import Style

TILE, LABEL = 256, 24
"""Pixels of the contact sheet: a picture's side at most, and the height of a line of words."""


@dataclass(frozen=True)
class ChosenStyle:
    """A style to draw with: `share` is its part of each strength; `left_out` names what of its file is not used."""

    name: str
    style: Style
    identity: str
    share: float = 1.0
    left_out: tuple[str, ...] = ()


class Generated(Record):
    """A picture that was drawn, and where it lies; `style_strengths` are those of each adapter by its name."""

    url: str
    prompt: str
    seed: int
    strength: float
    style_strengths: dict[str, float]


def split_share(reference: str) -> tuple[str, float]:
    """An adapter and its share of the strength, from 'fox.safetensors@0.5'; 1 where it has none."""
    name, mark, share = reference.rpartition("@")
    try:
        return (name, float(share)) if mark and name else (reference, 1.0)
    except ValueError:
        return reference, 1.0


def open_style(reference: str, base: Base, store: RunStore | None = None, template: str | None = None) -> ChosenStyle:
    """The style at a file, a PEFT folder or an adapter's URL; or of `store`, by pair of its newest run or first digits of a fingerprint.

    `template` is needed where nothing says how prompts read in the style. ConfigError where there is no such adapter,
    AdapterFileError where it is none or is for another base.
    """
    name, share = split_share(reference)
    if (match := IN_STORE.fullmatch(name)) is not None:
        store, name = RunStore(match["root"]), match["fingerprint"]
    elif (path := Path(name)).exists():
        file = read_lora(path)
        found = map_to_base(file, base.denoiser, base.family)
        style = Style(found.matrices, template or find_template(pick_facts(file.header), reference))
        return ChosenStyle(name, style, file.identity, share, found.left_out)
    elif store is None:
        raise ConfigError(
            f"{name}: there is no such file; name a file, an adapter's URL, or with --output a pair or fingerprint of a store"
        )
    (release,) = find_releases(store, [name])
    return _take_from_store(store, release.record, release.name, share, base, template or release.template or None)


def _take_from_store(store: RunStore, record: AdapterRecord, name: str, share: float, base: Base, template: str | None) -> ChosenStyle:
    if record.base_digest != base.digest:
        raise ConfigError(
            f"{name} was trained on base '{record.base}' (digest {record.base_digest[:12]}), not on '{base.name}'; give --base"
        )
    adapter = read_adapter(store, record, Role.STYLE)
    return ChosenStyle(name, Style(adapter.matrices, template or find_template(adapter.facts, name)), record.fingerprint, share)


def find_template(facts: dict[str, str], name: str) -> str:
    """How prompts read in a style, by its facts; AdapterFileError where they do not say."""
    if not (template := derive_template(facts)):
        raise AdapterFileError(f"{name} does not say how prompts read in its style; give --template '{{prompt}}, in …'")
    return template


def generate(
    base: Base,
    styles: Sequence[ChosenStyle],
    prompts: Sequence[str],
    *,
    strengths: Sequence[float],
    seeds: Sequence[int],
    sample: SampleConfig,
    to: str,
    listener: Listener = ignore,
) -> list[Generated]:
    """Draw every prompt with every seed at every strength, and write the pictures, a contact sheet and a list to `to`, a folder or bucket.

    A style's strength is its share of each of `strengths`, in the units of the guidance scale.
    """
    wanted = list(product(prompts, seeds, strengths))
    requests = [
        ImageRequest(prompt, seed, tuple(_name_terms(prompt, strength, styles)) if strength else ()) for prompt, seed, strength in wanted
    ]
    with styles_attached(base.denoiser, [one.style.matrices for one in styles]) as adapters:
        pictures = Sampler(base, adapters, sample).draw(requests, listener)
    target = open_objects(to, {})
    scheduler = type(base.make_scheduler(sample.scheduler, sample.steps, sample.size)).__name__
    origin = Origin(base=base.name, base_digest=base.digest, scheduler=scheduler, steps=sample.steps, size=sample.size)
    generated = []
    for (prompt, seed, strength), picture in zip(wanted, pictures, strict=True):
        name = f"{prompts.index(prompt):03d}-seed-{seed}-strength-{strength:g}.png"
        target.write(name, encode_png(picture, describe_generated(styles, prompt, seed, strength, sample, origin)))
        shares = {one.name: one.share * strength for one in styles}
        generated.append(Generated(url=f"{target.url}/{name}", prompt=prompt, seed=seed, strength=strength, style_strengths=shares))
    target.write("sheet.png", encode_png(draw_sheet(list(product(prompts, seeds)), strengths, pictures)))
    listed = json.dumps([one.model_dump() for one in generated], indent=2, ensure_ascii=False)
    target.write("images.json", f"{listed}\n".encode())
    return generated


def _name_terms(prompt: str, strength: float, styles: Sequence[ChosenStyle]) -> Iterator[StyleTerm]:
    for slot, one in enumerate(styles):
        if one.share:
            yield StyleTerm(slot, one.style.template.replace("{prompt}", prompt), one.share * strength)


def describe_generated(
    styles: Sequence[ChosenStyle], prompt: str, seed: int, strength: float, sample: SampleConfig, origin: Origin
) -> dict[str, str]:
    """The text chunks of a picture: as of one that a run draws, with all styles and their strengths in the JSON."""
    parts = [{"adapter": one.identity, "template": one.style.template, "strength": one.share * strength} for one in styles]
    facts = {"prompt": prompt, "seed": seed, "strength": strength, "guidance_scale": sample.guidance_scale}
    identity = styles[0].identity if len(styles) == 1 else digest_record({"styles": parts})
    record = ImageRecord(
        image_id=digest_record({**facts, "styles": parts, "profile": describe_profile(sample), "base": origin.base_digest}),
        fingerprint=identity if strength else "",
        style_prompt=styles[0].style.template.replace("{prompt}", prompt) if strength else "",
        profile=describe_profile(sample),
        url="",
        sha256="",
        bytes=0,
        **facts,
    )
    text = describe_picture(record, origin)
    return text | {PROVENANCE: json.dumps(json.loads(text[PROVENANCE]) | {"styles": parts}, sort_keys=True, ensure_ascii=False)}


def draw_sheet(rows: Sequence[tuple[str, int]], strengths: Sequence[float], pictures: Sequence[Image.Image]) -> Image.Image:
    """All pictures on one: a row for each prompt and seed, a column for each strength."""
    side = min(TILE, pictures[0].width)
    sheet = Image.new("RGB", (side * len(strengths), (side + LABEL) * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, len(strengths))
        left, top = column * side, row * (side + LABEL)
        sheet.paste(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (left, top + LABEL))
        prompt, seed = rows[row]
        words = f"λ {strengths[column]:g}" + ("" if column else f"  seed {seed}  {prompt}")
        pen.text((left + 3, top + 5), words, "black", font)
    return sheet

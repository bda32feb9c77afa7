"""What lies beside an adapter's files: the model card that the hub reads, and the facts that A1111 and InvokeAI read."""

import re

import yaml

from pairlora.presets import HUB_IDS
from pairlora.release.contents import Release
from pairlora.review.decisions import describe_review

LICENCE_IDS = {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "openrail", "openrail++", "creativeml-openrail-m"}
"""Licences that the hub knows by their lower-case name; any other is named as it stands in the manifest."""
SCORES = ("direction", "structure_ssim", "text_alignment", "content_leakage", "diversity")


def describe_for_tools(release: Release) -> dict[str, object]:
    """What A1111 and InvokeAI read beside an adapter. Their weight is one of a plain LoRA, never our strength."""
    facts: dict[str, object] = {"activation text": release.trigger, "notes": release.use}
    if release.weight is not None:
        facts["preferred weight"] = release.weight
    return facts


def write_card(release: Release, files: str = "") -> str:
    """The model card: YAML front matter as the hub reads it, then text; `files` says how the files are used.

    What comes from the manifest is escaped.
    """
    paragraphs = [
        f"# {escape_markdown(release.name)}",
        f"A style adapter (LoRA) for {escape_markdown(release.base)}, learned from one pair of pictures.",
        "![A picture in this style](style.png)" if release.preview else "",
        f"Write prompts as: {escape_markdown(release.template)}" if release.template else "",
        f"Use it with {release.use}.",
        files,
        _describe_scores(release),
        _begin_upper(escape_markdown(describe_review(release.decision))) if release.decision else "Nobody has accepted it yet.",
        f"Licence of the pictures: {escape_markdown(release.licence)}" if release.licence else "",
        f"Consent: {escape_markdown(release.consent)}" if release.consent else "",
        f"Training fingerprint: `{release.record.fingerprint}`",
    ]
    front = yaml.safe_dump(describe_front_matter(release), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n\n".join(filter(None, paragraphs)) + "\n"


def _describe_scores(release: Release) -> str:
    """A table of the means at the recommended strength; empty where the run measured none."""
    if (summary := release.summary) is None:
        return ""
    scores = [(metric, found) for metric in SCORES if (found := summary.find(metric, summary.recommended_strength))]
    rows = [f"| {metric} | {one.value:.3f} | {format_interval(one.low, one.high)} |" for metric, one in scores]
    return "\n".join(["| score at the recommended strength | mean | 95 % interval |", "|---|---|---|", *rows])


def _begin_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe_front_matter(release: Release) -> dict[str, object]:
    """What the hub reads of a card; the base is named where it is one of the hub's."""
    hub = {name: hub_id for hub_id, name in HUB_IDS.items()}
    base = hub.get(release.base, release.base)
    facts: dict[str, object] = {}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        facts |= {"base_model": base, "base_model_relation": "adapter"}
    licence = release.licence.strip().lower()
    facts |= {"library_name": "diffusers", "license": licence if licence in LICENCE_IDS else "other"}
    if licence and licence not in LICENCE_IDS:
        facts["license_name"] = release.licence
    if release.pair:
        facts["instance_prompt"] = release.pair.style_prompt(release.pair.plain_prompt)
    facts["tags"] = ["lora", "text-to-image", "style", "pairlora"]
    if release.sample:
        facts["widget"] = [{"text": release.sample.record.style_prompt, "output": {"url": "style.png"}}]
    return facts


def format_interval(low: float | None, high: float | None) -> str:
    """The interval of a mean; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} … {high:.3f}"


def escape_markdown(text: str) -> str:
    """Text as text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~])", r"\\\1", " ".join(text.split()))

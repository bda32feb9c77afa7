"""Accepted adapters in a release folder: the file as it was trained, a model card, a preview, and what A1111 reads.

What depends on a run (strength, weight, scores, who accepted) stands beside the adapter and never in it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from pairlora.config import HUB_IDS, RunConfig
from pairlora.errors import StoreError
from pairlora.records import AdapterRecord, Pair, Record, Review, RunRecord
from pairlora.report.collection import PairContents, ShownImage, collect_run
from pairlora.report.summaries import PairSummary
from pairlora.report.verdicts import find_out
from pairlora.review.decisions import ReviewDesk, describe_review
from pairlora.store.objects import open_objects
from pairlora.store.run_store import RunStore

LICENCE_IDS = {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "openrail", "openrail++", "creativeml-openrail-m"}
"""Licences that the hub knows by their lower-case name; any other is named as it stands in the manifest."""
SCORES = ("direction", "structure_ssim", "text_alignment", "content_leakage", "diversity")


class Published(Record):
    """An adapter in the release folder."""

    pair_id: str
    url: str


@dataclass(frozen=True)
class Release:
    """An accepted adapter and all that its card says; `strength` is the reviewer's, else the recommended one."""

    pair: Pair
    adapter: AdapterRecord
    decision: Review
    summary: PairSummary
    strength: float | None
    sample: ShownImage | None
    base: str


def publish_run(store: RunStore, run_id: str | None, to: str) -> list[Published]:
    """Copy what was accepted in a run (the newest where left out) to `to`, a folder or bucket, one folder a pair.

    Raises CorruptObjectError where an adapter is damaged; what was copied before stays.
    """
    desk = ReviewDesk(store, run_id)
    record = store.read_run(desk.run_id, RunRecord)
    if record is None:
        raise StoreError(f"{store.url} has no run {desk.run_id!r}")
    run = RunConfig.model_validate(record.config)
    target = open_objects(to, {})
    published = []
    for pair in collect_run(store, record).pairs:
        release = describe_release(pair, run)
        if release is None:
            continue
        for name, data in list_files(store, release):
            target.write(f"{release.pair.pair_id}/{name}", data)
        published.append(Published(pair_id=release.pair.pair_id, url=f"{target.url}/{release.pair.pair_id}"))
    return published


def describe_release(pair: PairContents, run: RunConfig) -> Release | None:
    """The release of a pair; null where its adapter is not accepted, or there is none."""
    decision = pair.decision
    if pair.job is None or pair.adapter is None or decision is None or decision.verdict != "accept":
        return None
    summary = find_out(pair, run.evaluate).summary
    strength = decision.strength or summary.recommended_strength
    styled = [image for image in pair.images if image.strength]
    sample = min(styled, key=lambda image: abs((image.strength or 0) - (strength or 0)), default=None)
    return Release(pair.job.pair, pair.adapter, decision, summary, strength, sample, run.base.name)


def list_files(store: RunStore, release: Release) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of a release, its card last."""
    adapter = release.adapter
    yield "style.safetensors", store.read_payload(adapter.style_url, adapter.style_sha256, adapter.style_bytes)
    if release.sample:
        record = release.sample.record
        yield "style.png", store.read_payload(record.url, record.sha256, record.bytes)
    yield "style.json", (json.dumps(describe_for_tools(release), indent=2, ensure_ascii=False) + "\n").encode()
    yield "README.md", write_card(release).encode()


def describe_for_tools(release: Release) -> dict[str, object]:
    """What A1111 and InvokeAI read beside an adapter. Their weight is one of a plain LoRA, never our strength."""
    facts: dict[str, object] = {"activation text": name_trigger(release.pair), "notes": describe_use(release)}
    if release.summary.weight.value is not None:
        facts["preferred weight"] = release.summary.weight.value
    return facts


def name_trigger(pair: Pair) -> str:
    """The words of the style template around its prompt."""
    return " ".join(pair.style_template.replace("{prompt}", " ").split()).strip(" ,;:")


def describe_use(release: Release) -> str:
    """How strong the adapter is to be used, in one line for each way of using it."""
    strength = (
        f"style guidance: strength {release.strength:g}" if release.strength is not None else "style guidance: no strength is recommended"
    )
    weight = release.summary.weight.value
    plain = f"plain LoRA: weight {weight:g}" if weight is not None else "plain LoRA: no weight was measured"
    return f"{strength}; {plain}"


def write_card(release: Release) -> str:
    """The model card: YAML front matter as the hub reads it, then text. What comes from the manifest is escaped."""
    pair, decision = release.pair, release.decision
    scores = [(metric, found) for metric in SCORES if (found := release.summary.find(metric, release.summary.recommended_strength))]
    lines = [
        f"# {escape_markdown(pair.pair_id)}",
        f"A style adapter (LoRA) for {escape_markdown(release.base)}, learned from one pair of pictures.",
        *(["![A picture in this style](style.png)"] if release.sample else []),
        f"Write prompts as: {escape_markdown(pair.style_template)}",
        f"Use it with {describe_use(release)}.",
        "| score at the recommended strength | mean | 95 % interval |\n|---|---|---|\n"
        + "\n".join(f"| {metric} | {one.value:.3f} | {format_interval(one.low, one.high)} |" for metric, one in scores),
        escape_markdown(describe_review(decision)[:1].upper() + describe_review(decision)[1:]),
        *([f"Licence of the pictures: {escape_markdown(pair.licence)}"] if pair.licence else []),
        *([f"Consent: {escape_markdown(pair.consent)}"] if pair.consent else []),
        f"Training fingerprint: `{release.adapter.fingerprint}`",
    ]
    front = yaml.safe_dump(describe_front_matter(release), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n\n".join(lines) + "\n"


def describe_front_matter(release: Release) -> dict[str, object]:
    """What the hub reads of a card; the base is named where it is one of the hub's."""
    pair, hub = release.pair, {name: hub_id for hub_id, name in HUB_IDS.items()}
    base = hub.get(release.base, release.base)
    facts: dict[str, object] = {}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        facts |= {"base_model": base, "base_model_relation": "adapter"}
    licence = pair.licence.strip().lower()
    facts |= {"library_name": "diffusers", "license": licence if licence in LICENCE_IDS else "other"}
    if licence and licence not in LICENCE_IDS:
        facts["license_name"] = pair.licence
    facts |= {"instance_prompt": pair.style_prompt(pair.plain_prompt), "tags": ["lora", "text-to-image", "style", "pairlora"]}
    if release.sample:
        facts["widget"] = [{"text": release.sample.record.style_prompt, "output": {"url": "style.png"}}]
    return facts


def format_interval(low: float | None, high: float | None) -> str:
    """The interval of a mean; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} … {high:.3f}"


def escape_markdown(text: str) -> str:
    """Text as text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~])", r"\\\1", " ".join(text.split()))

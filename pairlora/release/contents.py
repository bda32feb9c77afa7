"""What there is to say of an adapter that leaves the store: its pair, how strong it is to be used, and a picture."""

from dataclasses import dataclass

from pairlora.config import RunConfig
from pairlora.records import AdapterRecord, Pair, Review
from pairlora.report.collection import PairContents, ShownImage
from pairlora.report.summaries import PairSummary
from pairlora.report.verdicts import find_out
from pairlora.store.run_store import RunStore


@dataclass(frozen=True)
class Release:
    """An adapter and all that its files and its card say. What comes from a run is null where the store has none of it.

    `strength` is the reviewer's, else the recommended one; `preview` the PNG of `sample`, drawn nearest to it.
    """

    name: str
    record: AdapterRecord
    pair: Pair | None = None
    decision: Review | None = None
    summary: PairSummary | None = None
    strength: float | None = None
    sample: ShownImage | None = None
    preview: bytes | None = None

    @property
    def base(self) -> str:
        return self.record.base

    @property
    def template(self) -> str:
        """How prompts are written; empty where the pair is not known."""
        return self.pair.style_template if self.pair else ""

    @property
    def identifier(self) -> str:
        return self.pair.identifier if self.pair else ""

    @property
    def licence(self) -> str:
        return self.pair.licence if self.pair else ""

    @property
    def consent(self) -> str:
        return self.pair.consent if self.pair else ""

    @property
    def trigger(self) -> str:
        """The words of the style template around its prompt."""
        return " ".join(self.template.replace("{prompt}", " ").split()).strip(" ,;:")

    @property
    def weight(self) -> float | None:
        """The recommended weight as a plain LoRA; null where none was measured."""
        return self.summary.weight.value if self.summary else None

    @property
    def use(self) -> str:
        """How strong the adapter is to be used, in one line for each way of using it."""
        known = self.strength is not None
        strength = f"style guidance: strength {self.strength:g}" if known else "style guidance: no strength is recommended"
        plain = f"plain LoRA: weight {self.weight:g}" if self.weight is not None else "plain LoRA: no weight was measured"
        return f"{strength}; {plain}"


def describe_release(store: RunStore, contents: PairContents, run: RunConfig) -> Release | None:
    """The release of a pair as a run shows it; null where it has no adapter. A damaged preview is an error."""
    if contents.job is None or contents.adapter is None:
        return None
    decision = contents.decision if contents.decision and contents.decision.verdict == "accept" else None
    summary = find_out(contents, run.evaluate).summary
    strength = (decision and decision.strength) or summary.recommended_strength
    styled = [image for image in contents.images if image.strength]
    sample = min(styled, key=lambda image: abs((image.strength or 0) - (strength or 0)), default=None)
    preview = store.read_payload(sample.record.url, sample.record.sha256, sample.record.bytes) if sample else None
    return Release(contents.pair_id, contents.adapter, contents.job.pair, decision, summary, strength, sample, preview)

"""What the page shows of each pair: contact sheet, charts and facts, arranged for its template."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.records import Job, Pair
from pairlora.report.charts import StrengthPoint, draw_losses, draw_tradeoff
from pairlora.report.collection import PairContents, ShownImage
from pairlora.report.summaries import PairSummary, Summary
from pairlora.report.thumbnails import Thumbnail, Thumbnails

ROOT = "../../.."
"""From the folder of a run's report up to the store's root, below which the keys of adapters begin."""


@dataclass(frozen=True)
class Tile:
    """A picture on the page and the words for it; the picture is null where it could not be read."""

    thumbnail: Thumbnail | None
    words: str


@dataclass(frozen=True)
class Column:
    """A strength of the contact sheet, and what it came to over all prompts."""

    strength: float
    is_recommended: bool
    direction: Summary | None
    structure: Summary | None


@dataclass(frozen=True)
class SheetRow:
    """The pictures of one seed, one a column; null where none was drawn."""

    seed: int
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class SheetGroup:
    """The rows of one prompt, and its ground truth where the manifest gives one."""

    prompt: str
    truth: Tile | None
    rows: tuple[SheetRow, ...]


@dataclass(frozen=True)
class PairSection:
    """A pair as the page shows it."""

    pair: PairContents
    summary: PairSummary
    content: Tile | None
    style: Tile | None
    sample: Tile | None
    columns: tuple[Column, ...]
    sheet: tuple[SheetGroup, ...]
    tradeoff: Markup
    losses: Markup
    facts: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]

    @property
    def anchor(self) -> str:
        return f"pair-{self.pair.row}"

    @property
    def name(self) -> str:
        return self.pair.pair_id or f"row {self.pair.row}"

    @property
    def has_details(self) -> bool:
        """Whether there is more to show than the line of the overview."""
        return bool(self.pair.images) or self.pair.adapter is not None

    @property
    def has_truth(self) -> bool:
        return any(group.truth is not None for group in self.sheet)

    def at_recommended(self, metric: str) -> Summary | None:
        """The mean of a metric at the recommended strength."""
        return self.summary.find(metric, self.summary.recommended_strength)


def arrange_pair(pair: PairContents, summary: PairSummary, thumbnails: Thumbnails, run: RunConfig) -> PairSection:
    """The section of one pair."""
    described = pair.job.pair if pair.job else None
    images = {
        (image.record.prompt, image.record.seed, strength): image for image in pair.images if (strength := image.strength) is not None
    }
    return PairSection(
        pair=pair,
        summary=summary,
        content=_show_given(thumbnails, described.content, f"content of {described.pair_id}") if described else None,
        style=_show_given(thumbnails, described.style, f"style of {described.pair_id}") if described else None,
        sample=_show_sample(pair, summary, thumbnails),
        columns=_list_columns(pair, summary),
        sheet=_lay_out_sheet(described, pair.strengths, images, thumbnails) if described else (),
        tradeoff=_draw_tradeoff(summary, run),
        losses=draw_losses(pair.adapter.losses) if pair.adapter else Markup(""),
        facts=list_facts(pair),
        files=list_files(pair),
    )


def _show_given(thumbnails: Thumbnails, url: str, words: str) -> Tile:
    return Tile(thumbnails.given.get(url), words)


def _show_drawn(image: ShownImage, thumbnails: Thumbnails) -> Tile:
    record = image.record
    how = f"strength {record.strength:g}" if record.strength else "unstyled"
    return Tile(thumbnails.drawn.get(record.image_id), f"{record.prompt}, {how}, seed {record.seed}")


def _show_sample(pair: PairContents, summary: PairSummary, thumbnails: Thumbnails) -> Tile | None:
    """The first picture at the recommended strength."""
    shown = (image for image in pair.images if image.strength and image.strength == summary.recommended_strength)
    first = next(shown, None)
    return None if first is None else _show_drawn(first, thumbnails)


def _list_columns(pair: PairContents, summary: PairSummary) -> tuple[Column, ...]:
    return tuple(
        Column(
            strength,
            is_recommended=strength == summary.recommended_strength,
            direction=summary.find("direction", strength),
            structure=summary.find("structure_ssim", strength),
        )
        for strength in pair.strengths
    )


def _lay_out_sheet(
    pair: Pair, strengths: tuple[float, ...], images: Mapping[tuple[str, int, float], ShownImage], thumbnails: Thumbnails
) -> tuple[SheetGroup, ...]:
    def show(key: tuple[str, int, float]) -> Tile | None:
        return _show_drawn(images[key], thumbnails) if key in images else None

    def arrange(prompt: str) -> SheetGroup:
        seeds = sorted({seed for drawn, seed, _ in images if drawn == prompt})
        truth = _show_given(thumbnails, pair.truth[prompt], f"{prompt}, ground truth") if prompt in pair.truth else None
        rows = (SheetRow(seed, tuple(show((prompt, seed, strength)) for strength in strengths)) for seed in seeds)
        return SheetGroup(prompt, truth, tuple(rows))

    drawn = dict.fromkeys(prompt for prompt, _, _ in images)
    return tuple(arrange(prompt) for prompt in drawn)


def _draw_tradeoff(summary: PairSummary, run: RunConfig) -> Markup:
    directions, structures = summary.by_strength("direction"), summary.by_strength("structure_ssim")
    points = [StrengthPoint(one, directions[one], structures[one]) for one in sorted(directions.keys() & structures.keys())]
    return draw_tradeoff(points, summary.recommended_strength, run.evaluate.structure_floor) if points else Markup("")


# Facts


def list_facts(pair: PairContents) -> tuple[tuple[str, str], ...]:
    """Names and values of what is known of the training and the drawing of a pair."""
    outcome = pair.outcome
    facts = _describe_training(pair.job) if pair.job else []
    if pair.adapter:
        facts += [("trained", f"{pair.adapter.trained_at:%Y-%m-%d %H:%M} UTC on {pair.adapter.device}, {pair.adapter.seconds:.1f} s")]
    phases = {"train": outcome.train_seconds, "draw": outcome.draw_seconds, "score": outcome.score_seconds}
    facts += [("this run", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items()))]
    facts += [("images", f"{outcome.images_drawn} drawn, {outcome.images_reused} reused")]
    if outcome.peak_memory_bytes:
        facts += [("peak memory", f"{outcome.peak_memory_bytes / 2**30:.1f} GiB")]
    facts += [("device", outcome.device), ("attempts", str(outcome.attempts)), ("fingerprint", outcome.fingerprint[:12])]
    return tuple((name, value) for name, value in facts if value)


def _describe_training(job: Job) -> list[tuple[str, str]]:
    train = job.train
    return [
        ("steps", f"{train['steps']}, content alone for the first {train['content_steps']}"),
        ("learning rate", f"{train['learning_rate']:g}"),
        ("rank", f"content {train['content_rank']}, style {train['style_rank']}"),
        ("licence", job.pair.licence),
        ("consent", job.pair.consent),
    ]


def list_files(pair: PairContents) -> tuple[tuple[str, str], ...]:
    """Adapter files as (link relative to the page, words)."""
    adapter = pair.adapter
    if adapter is None:
        return ()
    files = (("style", adapter.style_url, adapter.style_bytes), ("content", adapter.content_url, adapter.content_bytes))
    return tuple((f"{ROOT}/{key}", f"{role}.safetensors, {size / 2**20:.1f} MiB") for role, key, size in files)

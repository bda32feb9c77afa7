"""What a pair's page shows: contact sheet, charts, files and facts, arranged for its template."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.records import Job, Pair
from pairlora.report.charts import StrengthPoint, draw_losses, draw_tradeoff
from pairlora.report.collection import PairContents, ShownImage
from pairlora.report.summaries import PairSummary, Summary
from pairlora.report.thumbnails import Thumbnail, ThumbnailFile, Thumbnails
from pairlora.report.tries import Try, list_tries
from pairlora.report.verdicts import Finding

ROOT = "../../../.."
"""From the folder of a run's pair pages up to the store's root, below which the keys of adapters and pictures begin."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture on a page and the words for it; the picture is null where it could not be read.

    `full` leads from a pair's page to the picture in its own size; empty where it is not in the store.
    """

    thumbnail: Thumbnail | ThumbnailFile | None
    words: str
    full: str = ""


@dataclass(frozen=True)
class Column:
    """A strength or LoRA weight of the contact sheet, and what it came to over all prompts."""

    label: str
    strength: float | None
    is_recommended: bool
    direction: Summary | None
    structure: Summary | None

    @property
    def is_plain_lora(self) -> bool:
        return self.strength is None


@dataclass(frozen=True)
class SheetRow:
    """The pictures of one seed, one a column; null where none was drawn."""

    seed: int
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class SheetGroup:
    """The rows of one prompt, whether the base cut it, and its ground truth where the manifest gives one."""

    prompt: str
    is_cut: bool
    truth: Tile | None
    rows: tuple[SheetRow, ...]


@dataclass(frozen=True)
class PairSection:
    """A pair as the report shows it: `content`, `style`, `unstyled` and `sample` in the gallery, all of it on its page."""

    pair: PairContents
    finding: Finding
    content: Tile | None
    style: Tile | None
    unstyled: Tile | None
    sample: Tile | None
    columns: tuple[Column, ...]
    sheet: tuple[SheetGroup, ...]
    tradeoff: Markup
    losses: Markup
    facts: tuple[tuple[str, str], ...]
    tries: tuple[Try, ...]

    @property
    def name(self) -> str:
        return self.pair.pair_id or f"row {self.pair.row}"

    @property
    def summary(self) -> PairSummary:
        return self.finding.summary

    @property
    def has_page(self) -> bool:
        """Whether there is more to show than a card; a row that is invalid has no id of its own to name a page by."""
        return self.pair.job is not None

    @property
    def has_truth(self) -> bool:
        return any(group.truth is not None for group in self.sheet)

    def at_recommended(self, metric: str) -> Summary | None:
        """The mean of a metric at the recommended strength."""
        return self.summary.find(metric, self.summary.recommended_strength)


def arrange_pair(pair: PairContents, finding: Finding, thumbnails: Thumbnails, run: RunConfig) -> PairSection:
    """The section of one pair."""
    described = pair.job.pair if pair.job else None
    columns = list_columns(pair, finding.summary)
    first = next(iter(pair.images), None)
    return PairSection(
        pair=pair,
        finding=finding,
        content=_show_given(thumbnails, described.content, f"content of {described.pair_id}") if described else None,
        style=_show_given(thumbnails, described.style, f"style of {described.pair_id}") if described else None,
        unstyled=_show_like(first, pair, 0.0, thumbnails),
        sample=_show_like(first, pair, finding.summary.recommended_strength, thumbnails),
        columns=columns,
        sheet=_lay_out_sheet(described, pair, thumbnails) if described else (),
        tradeoff=_draw_tradeoff(finding.summary, run),
        losses=draw_losses(pair.adapter.losses) if pair.adapter else Markup(""),
        facts=list_facts(pair),
        tries=list_tries(pair),
    )


def _show_given(thumbnails: Thumbnails, url: str, words: str) -> Tile:
    return Tile(thumbnails.given.get(url), words)


def show_drawn(image: ShownImage, drawn: Mapping[str, Thumbnail]) -> Tile:
    """A drawn picture with its prompt, seed and strength."""
    record = image.record
    return Tile(drawn.get(record.image_id), f"{record.prompt}, {name_setting(image)}, seed {record.seed}", f"{ROOT}/{record.url}")


def name_setting(image: ShownImage) -> str:
    """How a picture was styled, in words."""
    if image.lora_weight is not None:
        return f"plain LoRA {image.lora_weight:g}"
    return f"strength {image.strength:g}" if image.strength else "unstyled"


def _show_like(first: ShownImage | None, pair: PairContents, strength: float | None, thumbnails: Thumbnails) -> Tile | None:
    """The picture at a strength, of the prompt and seed of the pair's first one."""
    if first is None or strength is None:
        return None
    place = (first.record.prompt, first.record.seed)
    shown = (image for image in pair.images if image.strength == strength and (image.record.prompt, image.record.seed) == place)
    image = next(shown, None)
    return None if image is None else show_drawn(image, thumbnails.drawn)


def list_columns(pair: PairContents, summary: PairSummary) -> tuple[Column, ...]:
    """Strengths in ascending order, then the weights of the plain LoRA."""

    def guided(strength: float) -> Column:
        label = f"λ {strength:g}" if strength else "unstyled"
        chosen = strength == summary.recommended_strength
        return Column(label, strength, chosen, summary.find("direction", strength), summary.find("structure_ssim", strength))

    def plain(weight: float) -> Column:
        found = (summary.find_weight(metric, weight) for metric in ("direction", "structure_ssim"))
        return Column(f"LoRA {weight:g}", None, weight == summary.weight.value, *found)

    return (*map(guided, pair.strengths), *map(plain, pair.lora_weights))


def _lay_out_sheet(pair: Pair, contents: PairContents, thumbnails: Thumbnails) -> tuple[SheetGroup, ...]:
    """One group a prompt, one row a seed, one tile a column, in the order of `list_columns`."""
    images = {(image.record.prompt, image.record.seed, image.strength, image.lora_weight): image for image in contents.images}
    settings = [(strength, None) for strength in contents.strengths] + [(None, weight) for weight in contents.lora_weights]

    def show(prompt: str, seed: int, setting: tuple[float | None, float | None]) -> Tile | None:
        image = images.get((prompt, seed, *setting))
        return None if image is None else show_drawn(image, thumbnails.drawn)

    def arrange(prompt: str) -> SheetGroup:
        seeds = sorted({image.record.seed for image in contents.images if image.record.prompt == prompt})
        truth = _show_given(thumbnails, pair.truth[prompt], f"{prompt}, ground truth") if prompt in pair.truth else None
        rows = (SheetRow(seed, tuple(show(prompt, seed, setting) for setting in settings)) for seed in seeds)
        return SheetGroup(prompt, prompt in contents.cut_prompts, truth, tuple(rows))

    return tuple(arrange(prompt) for prompt in dict.fromkeys(image.record.prompt for image in contents.images))


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
        sizes = (pair.adapter.style_whole_bytes or pair.adapter.style_bytes, pair.adapter.content_whole_bytes or pair.adapter.content_bytes)
        facts += [("files", "style.safetensors {:.2g} MiB, content.safetensors {:.2g} MiB".format(*(size / 2**20 for size in sizes)))]
        facts += [("trained", f"{pair.adapter.trained_at:%Y-%m-%d %H:%M} UTC on {pair.adapter.device}, {pair.adapter.seconds:.1f} s")]
    facts += [("spill", "" if outcome.spill is None else f"{outcome.spill:.2f}")]
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

"""Score drawn pictures of a pair, each against the unstyled picture of the same prompt and seed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.metrics import cosine, direction, progress, spread, structure_ssim, truth_ssim
from pairlora.measures import METRICS

OF_PAIRS = ("direction", "progress", "style_similarity", "content_leakage", "subject_leakage")
"""Metrics that compare with the pair that a style was learned from."""


@dataclass(frozen=True)
class ScoredPair:
    """What all pictures of a pair are compared with."""

    content: Image.Image
    style: Image.Image
    content_prompt: str


@dataclass(frozen=True)
class EmbeddedPair:
    """A pair as CLIP sees it: unit vectors of one width, of both pictures and of the words for the subject."""

    content: Tensor
    style: Tensor
    subject: Tensor


@dataclass(frozen=True)
class Drawn:
    """A picture to score, the unstyled one beside it, and its ground truth where the manifest gives one."""

    prompt: str
    strength: float
    picture: Image.Image
    unstyled: Image.Image
    truth: Image.Image | None = None
    lora_weight: float | None = None


class Scorer:
    """The encoders of a run. `perceptual` is null where the configuration does not ask for it."""

    def __init__(self, clip: ClipEncoder, perceptual: PerceptualEncoder | None):
        self.clip = clip
        self.perceptual = perceptual

    @property
    def encoders(self) -> dict[str, str]:
        """The identity of the encoder behind each metric that this scorer computes; empty for metrics without one."""
        known = {"clip": self.clip.identity, "perceptual": self.perceptual.identity if self.perceptual else None, "": ""}
        return {metric.name: identity for metric in METRICS.values() if (identity := known[metric.encoder]) is not None}

    def score(self, pair: ScoredPair | None, drawn: Sequence[Drawn]) -> list[dict[str, float | None]]:
        """Raw values by metric, one dictionary a picture; a metric is null where it has no meaning for that picture.

        Without a pair, where nobody knows what a style was learned from, those are null that compare with one.
        The pictures of one prompt and strength come together, since `spread` looks from each at the others.
        """
        embedded = self._embed(pair) if pair else None
        prompts = list(dict.fromkeys(one.prompt for one in drawn))
        told = dict(zip(prompts, self.clip.embed_prompts(prompts), strict=True))
        styled = self.clip.embed_pictures([one.picture for one in drawn])
        unstyled = self.clip.embed_pictures([one.unstyled for one in drawn])
        scores = []
        for one, after, before in zip(drawn, styled, unstyled, strict=True):
            values = compare(after, before, embedded, told=told[one.prompt])
            scores.append(values | {"structure_ssim": structure_ssim(one.picture, one.unstyled)})
        for values, distance in zip(scores, measure_spread(drawn, styled), strict=True):
            values["spread"] = distance
        for values, more in zip(scores, self._compare_truth(drawn, styled), strict=True):
            values |= more
        return scores

    def _embed(self, pair: ScoredPair) -> EmbeddedPair:
        content, style = self.clip.embed_pictures([pair.content, pair.style])
        return EmbeddedPair(content, style, self.clip.embed_prompts([pair.content_prompt])[0])

    def _compare_truth(self, drawn: Sequence[Drawn], styled: Tensor) -> list[dict[str, float | None]]:
        known = [index for index, one in enumerate(drawn) if one.truth is not None]
        scores: list[dict[str, float | None]] = [{} for _ in drawn]
        if not known:
            return scores
        truths = [fit_truth(truth, one.picture.size) for one in drawn if (truth := one.truth) is not None]
        embedded = self.clip.embed_pictures(truths)
        for index, truth, embedding in zip(known, truths, embedded, strict=True):
            scores[index] = {"truth_similarity": cosine(styled[index], embedding), "truth_ssim": truth_ssim(drawn[index].picture, truth)}
        if self.perceptual is not None:
            pictures = self.perceptual.embed_pictures([drawn[index].picture for index in known])
            for index, picture, truth in zip(known, pictures, self.perceptual.embed_pictures(truths), strict=True):
                scores[index]["truth_perceptual_similarity"] = cosine(picture, truth)
        return scores


def measure_spread(drawn: Sequence[Drawn], embedded: Tensor) -> list[float | None]:
    """The spread of each picture among those of its prompt and strength, or LoRA weight."""
    groups: dict[tuple[str, float, float | None], list[int]] = defaultdict(list)
    for index, one in enumerate(drawn):
        groups[one.prompt, one.strength, one.lora_weight].append(index)
    found = {index: value for group in groups.values() for index, value in zip(group, spread(embedded[group]), strict=True)}
    return [found[index] for index in range(len(drawn))]


def fit_truth(truth: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A ground truth at the size of the picture that is compared with it, so that no metric judges its resolution."""
    return truth.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def compare(styled: Tensor, unstyled: Tensor, pair: EmbeddedPair | None, *, told: Tensor) -> dict[str, float | None]:
    """The metrics that are cosines of CLIP embeddings, all of them unit vectors of one width; null those of a pair where there is none."""
    related = dict.fromkeys(OF_PAIRS) if pair is None else relate(styled, unstyled, pair)
    return related | {"text_alignment": cosine(styled, told), "structure_similarity": cosine(styled, unstyled)}


def relate(styled: Tensor, unstyled: Tensor, pair: EmbeddedPair) -> dict[str, float | None]:
    """The metrics that have a meaning beside a pair alone."""
    content, style, subject = pair.content, pair.style, pair.subject
    return {
        "direction": direction(content, style, unstyled, styled),
        "progress": progress(content, style, unstyled, styled),
        "style_similarity": cosine(styled, style),
        "content_leakage": cosine(styled, content) - cosine(unstyled, content),
        "subject_leakage": cosine(styled, subject) - cosine(unstyled, subject),
    }

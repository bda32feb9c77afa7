"""The scores of a pair's pictures: each compared with its pair, its truth, and the unstyled picture of its prompt and seed."""

from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from pairlora.adapters.stacking import styles_attached
from pairlora.bases.interface import Base
from pairlora.bases.reconstruction import reconstruct
from pairlora.config import RunConfig
from pairlora.evaluation.scoring import Drawn, ScoredPair, Scorer, fit_truth
from pairlora.evaluation.spill import MOST_PICTURES, Example, measure_spill
from pairlora.execution.pair_work import PairWork, read_planned
from pairlora.identity import identify_score
from pairlora.records import ImageRecord, ImageReference, Job, PlannedImage, ScoreRecord
from pairlora.store.run_store import RunStore


class PairScoring:
    """Scores what the store has no scores of; `read_image` gives a stored picture."""

    def __init__(self, run: RunConfig, base: Base, store: RunStore, scorer: Scorer, read_image: Callable[[ImageRecord], Image.Image]):
        self._run = run
        self._base = base
        self._store = store
        self._scorer = scorer
        self._read_image = read_image

    def score(
        self, work: PairWork, planned: Mapping[str, PlannedImage], records: Mapping[str, ImageRecord], drawn: Mapping[str, Image.Image]
    ) -> int:
        """Refer to the planned pictures of a pair, score those that have no scores, and say how many these were.

        All by image_id: `records` are those of the store, `drawn` those that were just made. Where one picture of a prompt and setting has
        no scores, all of its seeds are scored, since some metrics look at them together.
        """
        work.references = [self._refer_to(work.job, image_id, one) for image_id, one in planned.items()]
        ids = {reference.image_id: reference.score_id for reference in work.references}
        known = self._store.read_markers("score", ids.values(), ScoreRecord)
        unscored = {_name_group(one) for image_id, one in planned.items() if ids[image_id] not in known}
        todo = [image_id for image_id, one in planned.items() if _name_group(one) in unscored]
        if todo:
            pair = ScoredPair(work.content, work.style, work.job.pair.plain_prompt)
            scores = self._scorer.score(pair, list(self._compare(work.job, todo, planned, records, dict(drawn))))
            facts = {"encoders": self._scorer.encoders}
            found = zip(todo, scores, strict=True)
            self._store.mark_all_done(
                "score", {ids[one]: ScoreRecord(score_id=ids[one], image_id=one, scores=values, **facts) for one, values in found}
            )
        return len(todo)

    def measure_adapter(
        self, work: PairWork, planned: Mapping[str, PlannedImage], records: Mapping[str, ImageRecord], drawn: Mapping[str, Image.Image]
    ) -> None:
        """Measure what the pair's adapter does to the unstyled pictures of other subjects than its own; arguments as those of `score`."""
        pair = work.job.pair
        others: dict[str, Example] = {}
        for image_id, one in planned.items():
            if one.is_unstyled and one.prompt not in (pair.plain_prompt, *others) and len(others) < MOST_PICTURES:
                picture = drawn[image_id] if image_id in drawn else self._read_image(records[image_id])
                others[one.prompt] = Example(picture, pair.style_prompt(one.prompt))
        style = Example(work.style, pair.style_prompt(pair.plain_prompt))
        with styles_attached(self._base.denoiser, [work.adapter]) as adapters:
            work.spill = measure_spill(self._base, adapters, style, list(others.values()), work.job.train["resolution"])

    def _refer_to(self, job: Job, image_id: str, planned: PlannedImage) -> ImageReference:
        prompt = planned.prompt if planned.is_unstyled else planned.style_prompt
        return ImageReference(
            pair_id=job.pair.pair_id,
            image_id=image_id,
            score_id=self._identify(job, image_id, planned),
            strength=planned.strength,
            lora_weight=planned.lora_weight,
            is_cut=self._base.count_tokens(prompt) > self._base.token_limit(),
        )

    def _identify(self, job: Job, image_id: str, planned: PlannedImage) -> str:
        """The identity of a picture's scores as a picture of this job, among the pictures of the run's seeds."""
        compared = {"content": job.content_sha256, "style": job.style_sha256, "reconstructed_truth": job.truth_sha256.get(planned.prompt)}
        compared["seeds"] = ",".join(map(str, self._run.sample.seeds))
        return identify_score(image_id, job.pair, compared=compared, encoders=self._scorer.encoders)

    def _compare(
        self,
        job: Job,
        todo: list[str],
        planned: Mapping[str, PlannedImage],
        records: Mapping[str, ImageRecord],
        pictures: dict[str, Image.Image],
    ) -> Iterator[Drawn]:
        """The pictures to score, each with what it is compared with."""
        unstyled = {(one.prompt, one.seed): image_id for image_id, one in planned.items() if one.is_unstyled}
        truths = {prompt: self._read_truth(job, prompt) for prompt in job.pair.truth}

        def picture_of(image_id: str) -> Image.Image:
            if image_id not in pictures:
                pictures[image_id] = self._read_image(records[image_id])
            return pictures[image_id]

        for image_id in todo:
            one = planned[image_id]
            beside = picture_of(unstyled[one.prompt, one.seed])
            yield Drawn(one.prompt, one.strength, picture_of(image_id), beside, truths.get(one.prompt), one.lora_weight)

    def _read_truth(self, job: Job, prompt: str) -> Image.Image:
        """A ground truth as the base's autoencoder shows it, so that scores judge the style and not the autoencoder."""
        size = self._run.sample.size
        picture = read_planned(job.pair.truth[prompt], job.truth_sha256[prompt], self._run.pictures)
        return reconstruct(self._base, fit_truth(picture, (size, size)))


def _name_group(planned: PlannedImage) -> tuple[str, float, float | None]:
    """The pictures that differ in their seeds alone."""
    return planned.prompt, planned.strength, planned.lora_weight

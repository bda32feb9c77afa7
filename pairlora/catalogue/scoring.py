"""The scores of styled assets: each against the reconstruction, in the direction of its adapter's own pair where one is known."""

from collections.abc import Callable, Sequence

from PIL import Image

from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.measures import RECONSTRUCTION, measure_psnr
from pairlora.catalogue.records import ChosenAdapter, StyledReference
from pairlora.catalogue.work import AssetWork, PlannedStyling
from pairlora.errors import PictureError
from pairlora.evaluation.scoring import Drawn, ScoredPair, Scorer
from pairlora.identity import identify_score
from pairlora.images import fit_pair, read_picture
from pairlora.records import Job, ScoreRecord
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

Look = Callable[[Image.Image], Image.Image]


class AssetScorer:
    """Scores what the store lacks. The pictures of an adapter's pair are read once."""

    def __init__(self, run: CatalogueConfig, store: RunStore, scorer: Scorer, read_styled: Callable[[AssetWork, str], Image.Image]):
        self.run = run
        self.store = store
        self.scorer = scorer
        self._read_styled = read_styled
        self._pairs: dict[str, ScoredPair] = {}

    def score(self, work: AssetWork, adapter: ChosenAdapter, truth: tuple[str, Image.Image] | None, look: Look) -> list[StyledReference]:
        """The references of an adapter's pictures of an asset, whose scores are in the store from here on.

        `look` shows a picture as the base's autoencoder does.
        """
        planned = [one for one in work.planned if one.adapter is None or one.adapter.fingerprint == adapter.fingerprint]
        ids = {one.styled_id: self._identify(work, one, adapter, truth) for one in planned}
        known = self.store.read_markers("score", ids.values(), ScoreRecord)
        todo = [one for one in planned if ids[one.styled_id] not in known]
        if todo:
            self._measure(work, todo, adapter, truth, ids, look)
        return [
            StyledReference(
                row=work.job.row,
                asset_id=work.job.row_id,
                adapter=adapter.label,
                fingerprint=adapter.fingerprint,
                strength=one.strength,
                styled_id=one.styled_id,
                score_id=ids[one.styled_id],
            )
            for one in planned
        ]

    def _measure(
        self,
        work: AssetWork,
        todo: Sequence[PlannedStyling],
        adapter: ChosenAdapter,
        truth: tuple[str, Image.Image] | None,
        ids: dict[str, str],
        look: Look,
    ) -> None:
        unstyled = self._read_styled(work, work.planned[0].styled_id)
        prompt, goal = work.job.asset.prompt, truth[1] if truth else None
        pair = self._read_pair(adapter.job) if adapter.job else None
        pictures = [self._read_styled(work, one.styled_id) for one in todo]
        drawn = [Drawn(prompt, one.strength, picture, unstyled, goal) for one, picture in zip(todo, pictures, strict=True)]
        for one, values in zip(todo, self.scorer.score(pair, drawn), strict=True):
            if one.adapter is None:
                values |= {
                    "reconstruction_psnr": measure_psnr(unstyled, work.picture),
                    "autoencoder_psnr": measure_psnr(look(work.picture), work.picture),
                }
            encoders = self.scorer.encoders | dict.fromkeys(RECONSTRUCTION, "")
            score_id = ids[one.styled_id]
            self.store.mark_done(
                "score", score_id, ScoreRecord(score_id=score_id, image_id=one.styled_id, scores=values, encoders=encoders)
            )

    def _identify(self, work: AssetWork, one: PlannedStyling, adapter: ChosenAdapter, truth: tuple[str, Image.Image] | None) -> str:
        """The identity of a picture's scores: the pair that it is compared with, the reconstruction, the truth."""
        job = adapter.job
        compared = {
            "content": job.content_sha256 if job else None,
            "style": job.style_sha256 if job else None,
            "reconstruction": work.planned[0].styled_id,
            "reconstructed_truth": truth[0] if truth else None,
        }
        return identify_score(one.styled_id, job.pair if job else None, compared=compared, encoders=self.scorer.encoders)

    def _read_pair(self, job: Job) -> ScoredPair:
        """The pictures that the adapter was trained on, as it saw them."""
        if job.fingerprint not in self._pairs:
            pictures = []
            for url, sha256 in ((job.pair.content, job.content_sha256), (job.pair.style, job.style_sha256)):
                picture = read_picture(url, self.run.pictures)
                if picture.sha256 != sha256:
                    raise PictureError(
                        f"{name_url(url)}, which {job.pair.pair_id} was trained on, has changed since; put the old picture back"
                    )
                pictures.append(picture.image)
            content, style = fit_pair(pictures[0], pictures[1], job.train["resolution"])
            self._pairs[job.fingerprint] = ScoredPair(content, style, job.pair.plain_prompt)
        return self._pairs[job.fingerprint]

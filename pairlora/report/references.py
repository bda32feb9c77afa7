"""Which pictures the tries of a run show for its pairs, kept as columns: of a large night there are hundreds of thousands."""

from collections import defaultdict
from collections.abc import Mapping

from pairlora.records import ImageReference
from pairlora.store.parts import decode_columns

IMAGES_SUFFIX = ".images"


class References:
    """The pictures of a run's pairs, by the shard that settled them."""

    def __init__(self, parts: Mapping[str, bytes]):
        """`parts` are those of the run; the ones that name pictures are kept."""
        found = {name.removesuffix(IMAGES_SUFFIX): data for name, data in parts.items() if name.endswith(IMAGES_SUFFIX)}
        self._columns = {shard: decode_columns(data) for shard, data in found.items()}
        self._places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for shard, columns in self._columns.items():
            for place, pair_id in enumerate(columns["pair_id"].to_pylist()):
                self._places[shard, pair_id].append(place)

    def find(self, shard: str, pair_id: str) -> tuple[ImageReference, ...]:
        """The pictures that a shard shows for a pair, each once, as it was named last; none where the shard names none."""
        places = self._places.get((shard, pair_id))
        if not places:
            return ()
        found = map(ImageReference.model_validate, self._columns[shard].take(places).to_pylist())
        return tuple({reference.image_id: reference for reference in found}.values())

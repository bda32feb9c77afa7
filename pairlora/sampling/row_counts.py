"""How many rows of the denoiser a set of pictures takes, in closed form: as published, one by one, and shared."""

from collections.abc import Collection, Sequence

from pairlora.records import PlannedImage
from pairlora.sampling.trajectories import ImageRequest, Timing, Trajectory, request_image


def count_published_rows(requests: Sequence[ImageRequest], steps: int) -> int:
    """Rows of the published sampler: unconditional, prompt and every active style in every step of every picture."""
    return sum(steps * (2 + len(request.active_styles)) for request in requests)


def count_rows_alone(requests: Sequence[ImageRequest], timing: Timing) -> int:
    """Rows of the paper's schedule with every picture drawn alone: no style before the onset, nothing shared."""
    return sum(count_rows([request], timing) for request in requests)


def count_rows(requests: Sequence[ImageRequest], timing: Timing, known: Collection[Trajectory] = ()) -> int:
    """Rows that the sampler computes for pictures in one call, those of prefixes in `known` being there already.

    With F the first guided step: pictures of one prompt and seed share the steps 0 … F, of which step 0 shares its
    unconditional row among prompts, and step F has one row more for each (slot, styled prompt). After F every
    trajectory has rows of its own: prompt, unconditional where the guidance scale is not 1, and its styles. Prompts
    are taken not to be empty.
    """
    prefixes = {request.prefix for request in requests}
    drawn = prefixes - set(known) if timing.fork else prefixes
    before, at, after = (_plain_rows(timing, steps) for steps in _phases(timing))
    rows = len(drawn) * before + len(prefixes) * at
    parting = drawn if timing.fork else prefixes
    if timing.guidance_scales[0] != 1:
        rows -= len(parting) - len({prefix.seed for prefix in parting})
    if timing.fork == len(timing):
        return rows
    rows += len(
        {(timing.locate(request, timing.fork), style.slot, style.prompt) for request in requests for style in request.active_styles}
    )
    paths = {request.path for request in requests}
    guided = sum(timing.guided[timing.fork + 1 :])
    return rows + sum(after + guided * len({(style.slot, style.prompt) for style in path.styles}) for path in paths)


def count_planned_rows(planned: Sequence[PlannedImage], timing: Timing, known: Collection[Trajectory] = ()) -> int:
    """Rows of planned pictures: those with style guidance in one call, and those of each weight of the plain LoRA in another."""
    weights = dict.fromkeys(one.lora_weight for one in planned)
    calls = {weight: [request_image(one) for one in planned if one.lora_weight == weight] for weight in weights}
    return sum(count_rows(requests, timing, known if weight is None else ()) for weight, requests in calls.items())


def _phases(timing: Timing) -> tuple[range, range, range]:
    """Steps before, at and after the one where pictures part."""
    fork, end = timing.fork, len(timing)
    return range(fork), range(fork, min(fork + 1, end)), range(fork + 1, end)


def _plain_rows(timing: Timing, steps: range) -> int:
    """Rows that one trajectory takes in these steps without its styles."""
    return sum(1 if timing.guidance_scales[step] == 1 else 2 for step in steps)

"""Portions as flow runs of a deployment: workers of its pool take them, each on its machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as runtime
from prefect.states import Cancelling, Crashed

from pairlora.config import FleetRun
from pairlora.errors import ConfigError, DispatchError
from pairlora.execution.fleet import Phase
from pairlora.records import Portion

LARGEST_PAGE = 200
"""The server gives no more flow runs at once."""
PHASES: dict[StateType, Phase] = {
    StateType.SCHEDULED: "waiting",
    StateType.PAUSED: "waiting",
    StateType.PENDING: "starting",
    StateType.RUNNING: "running",
    StateType.CANCELLING: "running",
    StateType.COMPLETED: "ended",
    StateType.FAILED: "ended",
    StateType.CRASHED: "ended",
    StateType.CANCELLED: "cancelled",
}
GOING_ON = [state.value for state, phase in PHASES.items() if phase in ("waiting", "starting", "running")]


class FlowRuns:
    """A dispatcher that asks for flow runs of one deployment, and knows them again by their tag, which is the run's id."""

    def __init__(self, deployment: str):
        self._deployment = deployment

    def start(self, run: FleetRun, portion: Portion) -> str:
        """Ask for the flow run of a portion. ConfigError where there is no such deployment."""
        parameters = {"run": run.model_dump(mode="json"), "portion": portion.model_dump(mode="json")}
        with _answered():
            try:
                asked = run_deployment(
                    self._deployment,
                    parameters=parameters,
                    timeout=0,
                    flow_run_name=portion.name,
                    tags=[portion.run_id],
                    idempotency_key=portion.name,
                )
            except ObjectNotFound as error:
                raise ConfigError(
                    f"fleet.deployment = '{self._deployment}': Prefect has no such deployment; set PREFECT_API_URL to the studio's server, "
                    "and make it by `prefect deploy --all --prefect-file deployments/prefect.yaml`"
                ) from error
        return str(asked.id)  # pyright: ignore[reportAttributeAccessIssue]  a coroutine only where it is called from one

    def look(self, ids: Sequence[str]) -> dict[str, Phase]:
        """In which phase these flow runs are; those that were deleted are left out."""
        pages = [ids[start : start + LARGEST_PAGE] for start in range(0, len(ids), LARGEST_PAGE)]
        runs = [run for page in pages for run in _read({"id": {"any_": list(page)}})]
        return {str(run.id): PHASES[run.state_type] for run in runs if run.state_type is not None}

    def find(self, run_id: str) -> dict[str, Portion]:
        """Portions of a run whose flow runs have not ended."""
        found = _read({"tags": {"all_": [run_id]}, "state": {"type": {"any_": GOING_ON}}})
        return {str(run.id): Portion.model_validate(run.parameters["portion"]) for run in found if "portion" in run.parameters}

    def cancel(self, process: str) -> None:
        """Let the worker of a flow run end it."""
        with _answered(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(process), Cancelling())

    def declare_lost(self, process: str) -> None:
        """Set a flow run to Crashed, so that its pool has its slot again."""
        with _answered(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(process), Crashed(message="its machine gave the store no sign of life"), force=True)


def tag_fleet(run_id: str) -> None:
    """Write the id of a run on the fleet's own flow run: who cancels it then finds the portions that an earlier fleet began, too."""
    own = UUID(runtime.get_id())
    with _answered(), get_client(sync_client=True) as client:
        client.update_flow_run(own, tags={*client.read_flow_run(own).tags, run_id})


def cancel_portions(flow: Flow, flow_run: FlowRun, state: State) -> None:
    """A hook for a fleet's flow that is cancelled: cancels the portions that it looked after, whoever asked for them."""
    flow_runs = FlowRuns("")
    begun = _read({"parent_flow_run_id": {"any_": [str(flow_run.id)]}, "state": {"type": {"any_": GOING_ON}}})
    with _answered(), get_client(sync_client=True) as client:
        tags = client.read_flow_run(flow_run.id).tags
    # a studio's own tags stand beside that of the run, and on other runs' portions too
    adopted = [process for tag in tags for process, portion in flow_runs.find(tag).items() if portion.run_id == tag]
    for process in dict.fromkeys([*(str(one.id) for one in begun), *adopted]):
        flow_runs.cancel(process)


def _read(described: dict) -> list[FlowRun]:
    with _answered(), get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(described))


@contextmanager
def _answered() -> Iterator[None]:
    """Errors of the client as the library's: what is refused is wrong, anything else may go well the next time."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.is_client_error and error.response.status_code not in (408, 429):
            raise ConfigError(f"Prefect's server refuses: {error.response.text[:2000]}") from error
        raise DispatchError(f"Prefect's server answers {error.response.status_code}") from error
    except (httpx.HTTPError, OSError) as error:
        raise DispatchError(f"Prefect's server does not answer: {type(error).__name__}: {error}") from error

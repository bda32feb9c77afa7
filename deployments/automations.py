"""Automations of a studio's Prefect server: flow runs whose machine died are seen as crashed, and people hear of nights that went wrong.

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    python -m deployments.automations --webhook https://hooks.example.com/studio

Run again, it replaces what it made before.
"""

from datetime import timedelta
from typing import Annotated, Any

import typer
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

HEARTBEAT_SECONDS = 30
"""What prefect.yaml sets for flow runs; Prefect's own default is 180."""
MISSED_HEARTBEATS = 4
"""One or two are missed by a machine that is merely busy: three at least, or healthy flow runs are called crashed."""
NIGHTS = ("customize-pairs", "customize-fleet")
"""Flows that begin every night. A portion that fails is begun again by its fleet."""
AWAITED = (*NIGHTS, "stylize-catalogue", "stylize-fleet")
"""Flows that people wait for once they are asked for."""
BLOCK = "pairlora-nights"

LOST, FAILED, LATE, MISSING = "pairlora-lost-flow-runs", "pairlora-night-failed", "pairlora-night-late", "pairlora-no-night"

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


def name_events(*states: str) -> set[str]:
    """The events by which Prefect says that a flow run entered one of these states, or that it lives."""
    return {f"prefect.flow-run.{state}" for state in states}


ENDS = name_events("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")


def describe_flow_runs(flows: tuple[str, ...] = ()) -> dict[str, Any]:
    """Which flow runs a trigger looks at: those of the named flows, all where none is named."""
    related = {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
    described = {"match": ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})}
    return described | ({"match_related": ResourceSpecification.model_validate(related)} if flows else {})


def detect_lost(heartbeat_seconds: float = HEARTBEAT_SECONDS) -> EventTrigger:
    """A flow run that gave heartbeats, and gives none any more without having ended. It looks at all flows of the server."""
    return EventTrigger(
        **describe_flow_runs(),
        after=name_events("heartbeat"),
        expect=name_events("heartbeat") | ENDS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=MISSED_HEARTBEATS * heartbeat_seconds),
    )


def detect_failed() -> EventTrigger:
    """A night that ended otherwise than it should; too many failed pairs are among the reasons."""
    expect = name_events("Failed", "Crashed", "TimedOut")
    return EventTrigger(**describe_flow_runs(AWAITED), expect=expect, posture=Posture.Reactive, threshold=1)


def detect_late(patience_seconds: float) -> EventTrigger:
    """A night whose time has come and that no worker begins: the pool is paused, its workers are gone, or the last one still goes on."""
    return EventTrigger(
        **describe_flow_runs(AWAITED),
        after=name_events("Late"),
        expect=name_events("Pending", "Running") | ENDS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=patience_seconds),
    )


def detect_missing(period_seconds: float) -> EventTrigger:
    """No night began for a whole period: the schedule is off, or nothing is scheduled any more."""
    expect = name_events("Running")
    return EventTrigger(
        **describe_flow_runs(NIGHTS), expect=expect, posture=Posture.Proactive, threshold=1, within=timedelta(seconds=period_seconds)
    )


def describe_automations(block: Any, *, heartbeat_seconds: float, patience_seconds: float, period_seconds: float) -> list[AutomationCore]:
    """All automations; `block` is the id of the block through which people hear of nights."""

    def notify(subject: str, body: str) -> list[ActionTypes]:
        return [SendNotification(block_document_id=block, subject=subject, body=body)]

    name, url = "{{ flow_run.name }} of {{ flow.name }}", "{{ flow_run|ui_url }}"
    crash = ChangeFlowRunState(state=StateType.CRASHED, name=None, force=False, message="no heartbeat: its machine or its worker is gone")
    return [
        AutomationCore(name=LOST, trigger=detect_lost(heartbeat_seconds), actions=[crash]),
        AutomationCore(
            name=FAILED,
            trigger=detect_failed(),
            actions=notify("pairlora: a night {{ flow_run.state.name }}", f"{name}: {{{{ flow_run.state.message }}}} {url}"),
        ),
        AutomationCore(
            name=LATE,
            trigger=detect_late(patience_seconds),
            actions=notify("pairlora: a night did not start", f"{name} is late, and no worker begins it. {url}"),
        ),
        AutomationCore(
            name=MISSING,
            trigger=detect_missing(period_seconds),
            actions=notify("pairlora: no night began", f"None of {', '.join(NIGHTS)} began for {period_seconds / 3600:g} hours."),
        ),
    ]


def save_webhook(url: str) -> Any:
    """A block that posts JSON with subject and body to a URL; gives its id."""
    data = {"text": "{{subject}}\n{{body}}"}
    block = CustomWebhookNotificationBlock(name=BLOCK, url=url, method="POST", json_data=data, headers=None, cookies=None)
    return block.save(BLOCK, overwrite=True)


def find_block(slug: str) -> Any:
    """The id of a notification block that is there, as of 'slack-webhook/studio'."""
    kind, _, name = slug.partition("/")
    with get_client(sync_client=True) as client:
        return client.read_block_document_by_name(name, kind).id


def replace_automations(automations: list[AutomationCore]) -> None:
    """Create automations in place of those of the same names."""
    for automation in automations:
        with get_client(sync_client=True) as client:
            for earlier in client.read_automations_by_name(automation.name):
                client.delete_automation(earlier.id)
            client.create_automation(automation)


@app.command()
def main(
    webhook: Annotated[
        str | None, typer.Option(envvar="PAIRLORA_WEBHOOK", help="where to post; in the environment, since such URLs are secrets")
    ] = None,
    block: Annotated[str | None, typer.Option(help="a notification block of Prefect instead, as of slack-webhook/studio")] = None,
    heartbeat: Annotated[float, typer.Option(help="PREFECT_FLOWS_HEARTBEAT_FREQUENCY of the flow runs, in seconds")] = HEARTBEAT_SECONDS,
    patience: Annotated[float, typer.Option(help="seconds that a night may be late; at least 10")] = 1800,
    period: Annotated[float, typer.Option(help="seconds within which a night must begin; at least 10")] = 26 * 3600,
) -> None:
    """Create the automations on the server of PREFECT_API_URL, in place of earlier ones."""
    if (webhook is None) == (block is None):
        raise typer.BadParameter("name either --webhook (or PAIRLORA_WEBHOOK) or --block")
    target = save_webhook(webhook) if webhook is not None else find_block(block or "")
    automations = describe_automations(target, heartbeat_seconds=heartbeat, patience_seconds=patience, period_seconds=period)
    replace_automations(automations)
    for automation in automations:
        typer.echo(f"{automation.name}: {automation.trigger.describe_for_cli()}")


if __name__ == "__main__":
    app()

"""The command line. `run` does a manifest through the flow; everything else needs neither flows nor Prefect.

Exit codes: 0 done; 1 an error that names itself; 2 bad configuration, manifest or installation; 3 the store;
5 too many pairs failed; 130 interrupted.
"""

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.table import Table

from pairlora.cli.adapters import export, generate, inspect
from pairlora.cli.console import err, out, reported_errors
from pairlora.cli.forgetting import forget
from pairlora.cli.options import AsJson, Base, Config, Devices, Fleet, Manifest, Offline, Output, RunId, Setting, SingleWriter, SkipBadRows
from pairlora.cli.stylizing import EPILOG, stylize
from pairlora.errors import ConfigError, MissingExtraError, MissingFlowError
from pairlora.review.commands import publish, review

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Learn a style from one pair of pictures, for a whole manifest of pairs: adapters, pictures in the new styles, and a report.",
    epilog="Exit codes: 1 error, 2 bad input, 3 store, 5 too many failed pairs, 130 interrupted.",
)

LOCAL_FLOW, FLEET_FLOW = ("customize", "customize_pairs"), ("shard", "customize_fleet")


def build_settings(config: Path | None, more: Mapping[str, Any] | None = None, **flags: Any) -> dict[str, Any]:
    """The configuration as nested values: file first, then flags, then single settings. `more` are a command's own flags by dotted path."""
    settings = read_config_file(config) if config else {}
    for path, value in {
        "manifest": flags.get("manifest"),
        "output.url": flags.get("output"),
        "output.single_writer": flags.get("single_writer") or None,
        "output.run_id": flags.get("run_id"),
        "base.name": flags.get("base"),
        "execution.devices": flags.get("devices"),
        "execution.skip_bad_rows": flags.get("skip_bad_rows") or None,
        "execution.offline": flags.get("offline") or None,
        **(more or {}),
    }.items():
        if value is not None:
            put_setting(settings, path, value)
    put_texts(settings, flags.get("settings") or [])
    return settings


def put_texts(settings: dict[str, Any], texts: list[str]) -> None:
    """Put the values of `--set`, each written as section.field=value."""
    for setting in texts:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write it as section.field=value")
        put_setting(settings, path.strip(), parse_value(text.strip()))


def put_setting(settings: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    *sections, field = path.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{path}: '{section}' is a value, not a section")
    settings[field] = value


def parse_value(text: str) -> Any:
    """A setting's value: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_config_file(path: Path) -> dict[str, Any]:
    """A TOML or YAML file as nested values."""
    import tomllib

    import yaml

    try:
        text = path.read_text()
        settings = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as TOML or YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds no sections; write them as in `pairlora plan --json`")
    return settings


def build_run(config: Path | None, **flags: Any):
    """The run's configuration, or a ConfigError that names every wrong field."""
    from pairlora.config import read_config

    return read_config(build_settings(config, **flags))


app.add_typer(review, name="review")
app.command()(publish)
app.command(epilog=EPILOG)(stylize)
app.command()(forget)
app.command()(export)
app.command()(inspect)
app.command()(generate)


@app.callback()
def configure(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log what the library does")] = False) -> None:
    """Set up logging before a command."""
    handler = RichHandler(console=err, show_path=False, markup=False) if err.is_terminal else logging.StreamHandler()
    plain = "%(message)s" if err.is_terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], format=plain)
    logging.getLogger("pairlora").setLevel(logging.INFO)


@app.command()
def run(
    manifest: Manifest,
    output: Output,
    config: Config = None,
    base: Base = None,
    devices: Devices = None,
    settings: Setting = None,
    skip_bad_rows: SkipBadRows = False,
    single_writer: SingleWriter = False,
    run_id: RunId = None,
    offline: Offline = False,
    fleet: Fleet = False,
    as_json: AsJson = False,
) -> None:
    """Train, draw and score every pair of a manifest, and write a report. Finished work is never done again.

    With --fleet this process only cuts the work into portions (--set fleet.portions=8), has the workers of a Prefect work pool do them,
    begins again what a lost machine left, and writes the one report. It may be killed; the same command takes over.
    """
    with reported_errors():
        values = build_run(
            config,
            manifest=manifest,
            output=output,
            base=base,
            devices=devices,
            settings=settings,
            skip_bad_rows=skip_bad_rows,
            single_writer=single_writer,
            run_id=run_id,
            offline=offline,
        )
        summary = load_flow(*FLEET_FLOW if fleet else LOCAL_FLOW)(values)
        if as_json:
            out.print_json(summary.model_dump_json())
            return
        print_summary(summary)


def load_flow(module: str, flow: str) -> Callable[..., Any]:
    """A flow of `flows/` in the working directory or PAIRLORA_HOME, as of `flows/customize.py:customize_pairs`."""
    root = Path(os.environ.get("PAIRLORA_HOME", ".")).resolve()
    if not (root / "flows" / f"{module}.py").is_file():
        raise MissingFlowError(f"{root} has no flows/{module}.py; run from a checkout of pairlora, or set PAIRLORA_HOME to one")
    for name, value in {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a busy machine takes more than the default of 20
    }.items():
        os.environ.setdefault(name, value)
    sys.path.insert(0, str(root))
    try:
        return getattr(importlib.import_module(f"flows.{module}"), flow)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prefect":
            raise
        raise MissingExtraError("`pairlora run` needs Prefect: pip install 'pairlora[prefect]'") from error


def print_summary(summary: Any) -> None:
    """What a run came to, in a few lines; the report's path last."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts.items() if count)
    out.print(f"{summary.run_id}: {counts or 'no pairs'}; {summary.trained} trained, {summary.images_drawn} images drawn, ", end="")
    out.print(f"{summary.images_reused} reused")
    if not summary.trained and not summary.images_drawn and not summary.failed:
        out.print("everything was in the store already: nothing trained, nothing drawn")
    for outcome in summary.failed[:20]:
        out.print(f"  {outcome.pair_id or f'row {outcome.row}'}: {outcome.error_class}: {outcome.error_message}", markup=False)
    out.print(summary.report_url, soft_wrap=True, highlight=False)


@app.command()
def rescore(
    output: Annotated[str, typer.Argument(help="root of the store: a folder or a URL of s3, gs or az", metavar="OUTPUT")],
    run_id: Annotated[str | None, typer.Option("--run-id", help="whose adapters; those of the newest run where left out")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="a test prompt in place of each pair's own; may be repeated")
    ] = None,
    secret_block: Annotated[str | None, typer.Option("--secret-block", help="a Prefect secret block with the store's credentials")] = None,
    devices: Devices = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="as in --set evaluate.clip=NAME; may be repeated")] = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate the adapters of a run again, with another CLIP, other prompts or strengths. Trains nothing; the run stays as it is."""
    from pairlora.execution.rescoring import Rescoring

    with reported_errors():
        changes: dict[str, Any] = {}
        put_texts(changes, settings or [])
        if devices:
            put_setting(changes, "execution.devices", devices)
        if offline:
            put_setting(changes, "execution.offline", True)
        if flat := [name for name, value in changes.items() if not isinstance(value, dict)]:
            raise ConfigError(f"--set {flat[0]}: write it as section.field=value")
        rescoring = Rescoring(output=output, secret_block=secret_block, run_id=run_id, prompts=tuple(prompts or ()), settings=changes)
        summary = load_flow("rescore", "rescore_run")(rescoring)
        if as_json:
            out.print_json(summary.model_dump_json())
            return
        print_summary(summary)


@app.command()
def validate(manifest: Manifest, config: Config = None, base: Base = None, settings: Setting = None, as_json: AsJson = False) -> None:
    """Check every row of a manifest, without touching pictures or devices."""
    from pairlora.manifest.reading import load_pairs

    with reported_errors():
        values = build_run(config, manifest=manifest, output="unused", base=base, settings=settings)
        pairs, _ = load_pairs(values.manifest, values.train, skip_bad_rows=False)
        out.print_json(data={"pairs": len(pairs)}) if as_json else out.print(f"{len(pairs)} pairs, all rows are valid")


@app.command()
def plan(
    manifest: Manifest,
    output: Output,
    config: Config = None,
    base: Base = None,
    devices: Devices = None,
    settings: Setting = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do: packs, shards, what the store has already, and about how long it takes. Writes nothing."""
    from pairlora.execution.estimates import estimate_run

    with reported_errors():
        values = build_run(
            config, manifest=manifest, output=output, base=base, devices=devices, settings=settings, skip_bad_rows=skip_bad_rows
        )
        estimate = estimate_run(values)
        if as_json:
            out.print_json(data={"estimate": estimate.model_dump(mode="json"), "config": values.model_dump(mode="json")})
            return
        table = Table(show_header=False, box=None)
        for name, value in estimate.describe().items():
            table.add_row(name, value)
        out.print(table)


@app.command()
def report(
    output: Output,
    run_id: Annotated[str | None, typer.Option("--run-id", help="which run; the newest where left out")] = None,
    link: Annotated[
        str | None, typer.Option(help="also give a link for people without credentials of the bucket, good for so long: 30m, 12h, 7d")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the report of a run again from what the store holds."""
    from pairlora.catalogue.runs import rebuild_catalogue_report
    from pairlora.execution.runs import rebuild_report
    from pairlora.report.links import parse_validity, share_report
    from pairlora.store.keys import CATALOGUE
    from pairlora.store.run_store import RunStore

    with reported_errors():
        validity = parse_validity(link) if link else None
        of_catalogue = run_id is not None and run_id.startswith(CATALOGUE)
        store = RunStore(output)
        summary = rebuild_catalogue_report(store, str(run_id)) if of_catalogue else rebuild_report(store, run_id)
        shared = {"link": share_report(store, summary.run_id, validity)} if validity else {}
        if as_json:
            out.print_json(data=summary.model_dump(mode="json") | shared)
            return
        print_summary(summary)
        for address in shared.values():
            out.print(address, soft_wrap=True, highlight=False, markup=False)


@app.command()
def prune(
    output: Annotated[str, typer.Argument(help="root of the store: a folder or a URL of s3, gs or az", metavar="OUTPUT")],
    older_than: Annotated[str, typer.Option("--older-than", help="runs that ended before so long, as 30d, 36h or 8w; a day at least")],
    delete: Annotated[bool, typer.Option("--delete/--dry-run", help="remove it; else only say what would go")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old runs, and what no other run needs of adapters and pictures. Reviews stay, and so does what changed within a day."""
    from pairlora.store.pruning import carry_out, parse_age, plan_pruning
    from pairlora.store.run_store import RunStore

    with reported_errors():
        store = RunStore(output)
        pruning = plan_pruning(store, parse_age(older_than))
        if delete:
            carry_out(store, pruning)
        found = {folder: {"objects": count, "bytes": size} for folder, (count, size) in pruning.sum_up().items()}
        if as_json:
            out.print_json(data={"deleted": delete, "runs": list(pruning.runs), "folders": found})
            return
        for folder, facts in found.items():
            out.print(f"{folder}: {facts['objects']} objects, {facts['bytes'] / 1e6:,.1f} MB", highlight=False)
        size = sum(facts["bytes"] for facts in found.values()) / 1e6
        done = f"removed {len(pruning.runs)} runs; freed {size:,.1f} MB"
        asked = f"{len(pruning.runs)} runs and {size:,.1f} MB would go; --delete removes them"
        out.print(done if delete else asked, highlight=False)


@app.command()
def doctor(
    output: Annotated[str | None, typer.Option("--output", "-o", help="also probe this store")] = None, as_json: AsJson = False
) -> None:
    """Check the installation: versions, devices, the embedded base, a store, and whether Prefect answers."""
    from pairlora.cli.diagnosis import diagnose

    with reported_errors():
        findings = diagnose(output)
        if as_json:
            out.print_json(data=[finding.model_dump() for finding in findings])
        for finding in findings if not as_json else []:
            out.print(f"[{'green' if finding.well else 'red'}]{'ok  ' if finding.well else 'look'}[/] {finding.topic}: ", end="")
            out.print(finding.found, markup=False, highlight=False)
        if not all(finding.well for finding in findings):
            raise typer.Exit(1)

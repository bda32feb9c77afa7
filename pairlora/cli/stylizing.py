"""`pairlora stylize`: a catalogue of finished pictures in the styles of adapters."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pairlora.cli.console import out, reported_errors
from pairlora.cli.options import AsJson, Devices, Fleet, Offline, RunId, SingleWriter, SkipBadRows

EPILOG = """The catalogue is CSV, Parquet or JSONL with the columns asset_id, image and prompt; mask, truth, group and licence may follow.

pairlora stylize icons.csv -o out --adapter fox --plan

pairlora stylize icons.csv -o out --adapter fox --adapter 3fa2c81b --strength 0.5 --to styled

pairlora stylize icons.csv -o out --adapter 20261124T020000Z-ab12cd/fox --way noise --template "a flat icon of {name}"

pairlora stylize icons.csv -o out --adapter loras/ink.safetensors --style-template "{prompt}, in bold black ink lines"

Ctrl-C ends within seconds; the same command goes on where it stopped, and does nothing where nothing is left."""


Catalogue = Annotated[str, typer.Argument(help="CSV, Parquet or JSONL: a path or a URL of s3, gs or az", metavar="CATALOGUE")]
Output = Annotated[str, typer.Option("--output", "-o", help="root of the store that trained adapters are of; results go there")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML or YAML file with sections as of --plan --json")]
Base = Annotated[str | None, typer.Option("--base", help="the base that the adapters were trained on; 'embedded' by default")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="one setting, as in --set files.format=png or --set entry.refinements=5")]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        "-a",
        help="a pair of the newest run that has it, 'run/pair', a fingerprint, or a LoRA of any trainer: a .safetensors file, "
        "a folder of PEFT, a URL of either; may be repeated",
    ),
]
StyleTemplates = Annotated[
    list[str] | None,
    typer.Option("--style-template", help="'{prompt}, in ink' of the first adapter that is a file, the second, …, where files say none"),
]
Partial = Annotated[bool, typer.Option("--partial", help="draw with a LoRA file of which some layers cannot be used")]
Way = Annotated[
    str | None, typer.Option("--way", help="'invert' (faithful), 'noise' (img2img) or 'control' (edges); --plan says what each costs")
]
ControlNet = Annotated[
    str | None, typer.Option("--control", help="of 'control': folder or hub id of a ControlNet for the base and Canny's edges")
]
Tiles = Annotated[
    int | None, typer.Option("--tiles", help="tiles that a large asset is drawn in at most, to keep more of its detail; 1 by default")
]
Timestep = Annotated[
    int | None, typer.Option("--timestep", help="where drawing starts, of 1000: lower keeps more of the asset; 600 by default")
]
Strengths = Annotated[
    list[float] | None,
    typer.Option(
        "--strength",
        help="a strength λ; 'noise' takes what reports of pairs recommend, 'invert' that over their λ_cfg, since its own is 1; "
        "may be repeated; 0 is always drawn",
    ),
]
Template = Annotated[str | None, typer.Option("--template", help="prompt of assets that give none, over columns: 'a flat icon of {name}'")]
Plan = Annotated[bool, typer.Option("--plan", help="say what it would take, in evaluations of the base, and do nothing")]
Folder = Annotated[Path | None, typer.Option("--to", help="also write the files into this folder, named after asset, adapter and strength")]


def stylize(
    catalogue: Catalogue,
    output: Output,
    adapters: Adapters = None,
    style_templates: StyleTemplates = None,
    partial: Partial = False,
    way: Way = None,
    control: ControlNet = None,
    timestep: Timestep = None,
    tiles: Tiles = None,
    strengths: Strengths = None,
    template: Template = None,
    config: Config = None,
    base: Base = None,
    devices: Devices = None,
    settings: Setting = None,
    skip_bad_rows: SkipBadRows = False,
    single_writer: SingleWriter = False,
    run_id: RunId = None,
    offline: Offline = False,
    fleet: Fleet = False,
    plan: Plan = False,
    to: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Draw pictures that exist already in the styles of adapters: same size, same cut-out, and a report with the oddest first."""
    from pairlora.catalogue.config import read_catalogue_config
    from pairlora.cli.main import build_settings

    with reported_errors():
        own = {"adapters": adapters or None, "partial": partial or None, "prompt_template": template, "tiles.most": tiles}
        entry = {"entry.way": way, "entry.timestep": timestep, "entry.control.name": control}
        values = build_settings(
            config,
            own | entry,
            manifest=catalogue,
            output=output,
            base=base,
            devices=devices,
            settings=settings,
            skip_bad_rows=skip_bad_rows,
            single_writer=single_writer,
            run_id=run_id,
            offline=offline,
        )
        run = read_catalogue_config(_complete(values, style_templates, strengths))
        _show_plan(run, as_json) if plan else _stylize(run, "stylize_fleet" if fleet else "stylize_catalogue", to, as_json)


def _complete(values: dict[str, Any], style_templates: list[str] | None, strengths: list[float] | None) -> dict[str, Any]:
    """The configuration with what the command line says by adapter, and as λ."""
    from pairlora.catalogue.config import relate_strengths
    from pairlora.catalogue.foreign import assign_templates

    if style_templates:
        values["style_templates"] = values.get("style_templates", {}) | assign_templates(values.get("adapters", ()), style_templates)
    return relate_strengths(values, strengths) if strengths else values


def _show_plan(run: Any, as_json: bool) -> None:
    from pairlora.catalogue.costs import estimate_catalogue

    estimate = estimate_catalogue(run)
    if as_json:
        out.print_json(data={"estimate": estimate.model_dump(mode="json"), "config": run.model_dump(mode="json")})
        return
    table = Table(show_header=False, box=None)
    for name, value in estimate.describe().items():
        table.add_row(name, value)
    out.print(table)


def _stylize(run: Any, flow: str, to: Path | None, as_json: bool) -> None:
    from pairlora.catalogue.export import export_catalogue
    from pairlora.cli.main import load_flow, print_summary
    from pairlora.errors import TooManyFailuresError
    from pairlora.store.run_store import RunStore

    try:
        summary = load_flow("stylize", flow)(run)
    except TooManyFailuresError as error:
        if to is not None:
            export_catalogue(RunStore(run.output.url), error.run_id, to)  # what was done is there, however much failed
        raise
    if to is not None:
        export_catalogue(RunStore(run.output.url), summary.run_id, to)
    if as_json:
        out.print_json(summary.model_dump_json())
    else:
        print_summary(summary)

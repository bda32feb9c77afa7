"""Arguments and options that several commands share, each with the words that its help says."""

from pathlib import Path
from typing import Annotated

import typer

Manifest = Annotated[str, typer.Argument(help="CSV, Parquet or JSONL: a path or a URL of s3, gs or az", metavar="MANIFEST")]
Output = Annotated[str, typer.Option("--output", "-o", help="root of the store: a folder or a URL of s3, gs or az")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML or YAML file with sections as of `pairlora plan --json`")]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="'embedded', 'sdxl', 'sd15', 'flux', a local folder, a single .safetensors file (with --set base.config=…), or a hub id",
    ),
]
Devices = Annotated[str | None, typer.Option("--devices", help="'auto', 'cpu:2' (two workers of one thread), 'cuda', 'cuda:0,1'")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="one setting, as in --set train.steps=200; may be repeated")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="report bad rows as invalid and go on")]
SingleWriter = Annotated[bool, typer.Option("--single-writer", help="accept a target without create-only writes; one run at a time")]
RunId = Annotated[str | None, typer.Option("--run-id", help="name the run; else the newest unfinished one goes on")]
Offline = Annotated[bool, typer.Option("--offline", help="touch no network beyond the store")]
Fleet = Annotated[
    bool,
    typer.Option("--fleet", help="on the machines of a Prefect work pool, by flow runs of fleet.deployment; see deployments/README.md"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]

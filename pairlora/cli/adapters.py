"""The commands that take adapters as they are: out of a store as files, looked at, and drawn with."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pairlora.cli.console import err, out, reported_errors

Precision = Annotated[Literal["float32", "float16"], typer.Option("--dtype", help="precision of the files")]


def export(
    output: Annotated[str, typer.Argument(help="root of the store: a folder or a URL of s3, gs or az", metavar="OUTPUT")],
    adapters: Annotated[list[str], typer.Argument(help="pairs of the run, or first digits of fingerprints", metavar="ADAPTER …")],
    to: Annotated[str, typer.Option("--to", help="folder, or a URL of s3, gs or az; one folder an adapter")],
    run_id: Annotated[str | None, typer.Option("--run-id", help="whose pairs; those of the newest run where left out")] = None,
    dtype: Precision = "float32",
    content: Annotated[bool, typer.Option("--content", help="the content adapter as well")] = False,
) -> None:
    """Write adapters as files that diffusers, ComfyUI, A1111, Forge and InvokeAI load, each with a model card and a preview."""
    from pairlora.release.exporting import find_releases, write_releases
    from pairlora.store.run_store import RunStore

    with reported_errors():
        store = RunStore(output)
        for one in write_releases(store, find_releases(store, adapters, run_id), to, dtype, content=content):
            out.print(f"{one.pair_id}: {one.url}", markup=False, highlight=False, soft_wrap=True)


def inspect(
    files: Annotated[list[Path], typer.Argument(help="LoRA files of any trainer, or folders of PEFT", metavar="FILE …")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Say what an adapter file is: its base, layers, ranks, orthogonality, trigger words, recommended strength and hashes."""
    from pairlora.release.inspection import inspect_file

    with reported_errors():
        found = [inspect_file(path) for path in files]
        if as_json:
            out.print_json(data=[one.model_dump(mode="json") for one in found])
            return
        for one in found:
            out.print(one.path, markup=False, highlight=False, soft_wrap=True)
            for name, value in one.describe().items():
                out.print(f"  {name}: {value}", markup=False, highlight=False, soft_wrap=True)


def generate(
    adapters: Annotated[
        list[str],
        typer.Argument(
            help="file, PEFT folder, adapter's URL, or with --output pair or fingerprint; @0.5 gives it half of each strength",
            metavar="ADAPTER …",
        ),
    ],
    prompts: Annotated[list[str], typer.Option("--prompt", help="what to draw, without the style's words; may be repeated")],
    to: Annotated[str, typer.Option("--to", help="folder, or a URL of s3, gs or az")],
    base: Annotated[str, typer.Option("--base", help="as in `pairlora run`")] = "embedded",
    output: Annotated[str | None, typer.Option("--output", "-o", help="root of the store that pairs and fingerprints are of")] = None,
    strengths: Annotated[list[float] | None, typer.Option("--strength", help="strength λ; may be repeated; 0 draws the base alone")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="may be repeated; 0 where left out")] = None,
    templates: Annotated[
        list[str] | None, typer.Option("--template", help="'{prompt}, in ink' of the first adapter, the second, …, where files say none")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="draw with a file of which some layers cannot be used")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option("--dtype", help="precision of the base")] = "float32",
    revision: Annotated[str | None, typer.Option("--revision", help="commit or tag of a base that is a hub id")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="one setting of `sample`, as in --set steps=30")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Draw prompts in the style of one or several adapters, of any trainer, at some strengths; ends with a contact sheet."""
    from pairlora.bases.loading import load_base
    from pairlora.config import SampleConfig
    from pairlora.generation import generate as draw_all
    from pairlora.generation import open_style
    from pairlora.store.run_store import RunStore
    from pairlora.styles import read_settings

    with reported_errors():
        loaded = load_base(base, revision or find_revision(base), device=device, dtype=dtype)
        sample = read_settings(loaded, "sample", SampleConfig, dict(parse_setting(text) for text in settings or []))
        store = RunStore(output) if output else None
        said = [*(templates or []), *([None] * len(adapters))]
        styles = [open_style(reference, loaded, store, template) for reference, template in zip(adapters, said, strict=False)]
        for one in styles:
            report_left_out(one.name, one.left_out, partial)
        chosen = strengths or [sample.guidance_scale]
        generated = draw_all(loaded, styles, prompts, strengths=chosen, seeds=seeds or [0], sample=sample, to=to)
        if as_json:
            out.print_json(data=[one.model_dump(mode="json") for one in generated])
            return
        for one in generated:
            out.print(f"λ {one.strength:g}, seed {one.seed}, {one.prompt}: {one.url}", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{to.rstrip('/')}/sheet.png", markup=False, highlight=False, soft_wrap=True)


def report_left_out(name: str, left_out: tuple[str, ...], partial: bool) -> None:
    """Say which layers of a file are not used; AdapterFileError unless the user wants the style without them."""
    from pairlora.adapters.foreign import describe_left_out
    from pairlora.errors import AdapterFileError

    if not left_out:
        return
    what = f"{name}: {describe_left_out(left_out)}"
    if not partial:
        raise AdapterFileError(f"{what}; the style would not be whole: --partial draws without them")
    err.print(f"{what}; drawn without them", markup=False, highlight=False, soft_wrap=True)


def find_revision(base: str) -> str | None:
    """The pinned revision of a named base."""
    from pairlora.presets import HUB_IDS, PRESETS

    return PRESETS.get(HUB_IDS.get(base, base), {}).get("base", {}).get("revision")


def parse_setting(text: str) -> tuple[str, Any]:
    """Name and value of a setting that is written as name=value."""
    import json

    from pairlora.errors import ConfigError

    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: write it as name=value")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()

"""The commands that take adapters as they are: out of a store as files."""

from typing import Annotated, Literal

import typer

from pairlora.cli.console import out, reported_errors

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

"""The command that forgets a picture."""

from typing import Annotated

import typer

from pairlora.cli.console import out, reported_errors


def forget(
    asset: Annotated[str, typer.Option("--asset", help="a picture or LoRA file: its sha256, or path or URL", metavar="DIGEST|FILE")],
    output: Annotated[str, typer.Option("--output", "-o", help="root of the store: a folder or a URL of s3, gs or az")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be removed, and change nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Remove everything that was made of a picture or LoRA file, from all runs, and never use it again. Run it while no run is going."""
    from pairlora.catalogue.forgetting import find_derived_assets, forget_derived_assets
    from pairlora.execution.forgetting import digest_asset, find_derived, forget_derived
    from pairlora.store.run_store import RunStore

    with reported_errors():
        store = RunStore(output)
        derived = find_derived(store, digest_asset(asset))
        styled = find_derived_assets(store, derived.sha256, set(derived.adapters))
        if not dry_run:
            forget_derived_assets(store, styled)  # first: which adapters are meant stands in the plans that the other takes away
            forget_derived(store, derived)
        if as_json:
            out.print_json(data=derived.model_dump(mode="json") | {"catalogues": styled.model_dump(mode="json")})
            return
        for run_id in styled.runs:
            out.print(f"{run_id}: {len(styled.styled)} styled assets", markup=False, highlight=False)
        for file in styled.files:
            out.print(f"LoRA file {file.fingerprint}", markup=False, highlight=False)
        for run_id, pairs in derived.pairs.items():
            out.print(f"{run_id}: {', '.join(pairs)}", markup=False, highlight=False)
        out.print(f"{'would remove' if dry_run else 'removed'} {derived.describe()}", markup=False, highlight=False)
        if not dry_run:
            out.print(f"tombstone of {derived.sha256}: no run of this store trains on the picture again", markup=False, highlight=False)

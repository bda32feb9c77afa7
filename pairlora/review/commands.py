"""The commands of a review: decide on pairs, serve the report with buttons, publish what was accepted."""

import getpass
from typing import Annotated, Literal

import typer

from pairlora.cli.console import err, out, reported_errors

review = typer.Typer(no_args_is_help=True, help="Decide on the adapters of a run: from the command line, or on the report's page.")

Pairs = Annotated[list[str], typer.Argument(help="ids of pairs", metavar="PAIR …")]
Output = Annotated[str, typer.Option("--output", "-o", help="root of the store: a folder or a URL of s3, gs or az")]
Place = Annotated[str, typer.Argument(help="root of the store: a folder or a URL of s3, gs or az", metavar="OUTPUT")]
RunId = Annotated[str | None, typer.Option("--run-id", help="which run; the newest where left out")]
Strength = Annotated[float | None, typer.Option("--strength", help="strength λ that the adapter is to be used at")]
Comment = Annotated[str, typer.Option("--comment", "-m", help="why")]
Reviewer = Annotated[str | None, typer.Option("--by", help="who decides; the name of this account where left out")]


@review.command()
def accept(
    pairs: Pairs, output: Output, run_id: RunId = None, strength: Strength = None, comment: Comment = "", by: Reviewer = None
) -> None:
    """Accept the adapters of pairs."""
    decide("accept", pairs, output, run_id, strength, comment, by)


@review.command()
def reject(
    pairs: Pairs, output: Output, run_id: RunId = None, strength: Strength = None, comment: Comment = "", by: Reviewer = None
) -> None:
    """Reject the adapters of pairs."""
    decide("reject", pairs, output, run_id, strength, comment, by)


def decide(
    verdict: Literal["accept", "reject"],
    pairs: list[str],
    output: str,
    run_id: str | None,
    strength: float | None,
    comment: str,
    by: str | None,
) -> None:
    """Record one decision for each pair; none where one of the pairs is not of the run."""
    from pairlora.review.decisions import ReviewDesk, describe_review
    from pairlora.store.run_store import RunStore

    with reported_errors():
        desk = ReviewDesk(RunStore(output), run_id)
        desk.check(pairs)
        for pair in dict.fromkeys(pairs):
            made = desk.decide(pair, verdict, reviewer=by or getpass.getuser(), strength=strength, comment=comment)
            out.print(f"{pair}: {describe_review(made)}", markup=False, highlight=False)


@review.command()
def serve(
    output: Place,
    run_id: RunId = None,
    port: Annotated[int, typer.Option("--port", help="port on loopback; a free one where 0")] = 0,
    by: Reviewer = None,
) -> None:
    """Show the report of a run in a browser, with buttons to accept and reject. For this machine alone; Ctrl-C ends it."""
    from pairlora.review.decisions import ReviewDesk
    from pairlora.store.run_store import RunStore

    with reported_errors():
        from pairlora.review.app import serve_reviews

        desk = ReviewDesk(RunStore(output), run_id)
        serve_reviews(desk, reviewer=by or getpass.getuser(), port=port, tell=lambda url: out.print(url, soft_wrap=True, highlight=False))
        err.print("`pairlora report` builds the report again with the decisions in it")


def publish(
    output: Place,
    to: Annotated[str, typer.Option("--to", help="release folder, or a URL of s3, gs or az")],
    run_id: RunId = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option("--dtype", help="precision of the files")] = "float32",
) -> None:
    """Export the accepted adapters of a run to a release folder, each with its files, a model card and a preview."""
    from pairlora.review.publishing import publish_run
    from pairlora.store.run_store import RunStore

    with reported_errors():
        published = publish_run(RunStore(output), run_id, to, dtype)
        for one in published:
            out.print(f"{one.pair_id}: {one.url}", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{len(published)} adapters published" if published else "nobody has accepted an adapter of this run yet")

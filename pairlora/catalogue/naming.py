"""File names that lead back from a styled asset to its row of the catalogue."""

from pairlora.catalogue.records import StyledRecord, StyledReference


def name_file(reference: StyledReference, record: StyledRecord) -> str:
    """`<asset_id>--<adapter>--<strength>.<suffix>`; the reconstruction is of no adapter."""
    suffix = record.url.rpartition(".")[2]
    if not reference.strength:
        return f"{reference.asset_id}--reconstruction.{suffix}"
    return f"{reference.asset_id}--{reference.adapter}--{reference.strength:g}.{suffix}"

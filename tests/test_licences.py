"""A base whose licence is not on the list is refused before anything is read or trained, with the remedy."""

from pathlib import Path

import pytest

from pairlora.bases.licences import check_licence, find_licence
from pairlora.config import BaseConfig, RunConfig
from pairlora.errors import LicenceError
from pairlora.execution.estimates import estimate_run
from pairlora.execution.runs import open_run


def configure(tmp_path: Path, **base: object) -> RunConfig:
    settings = {"manifest": str(tmp_path / "missing.csv"), "output": {"url": str(tmp_path / "out")}, "base": {"name": "flux"} | base}
    return RunConfig.model_validate(settings)


@pytest.mark.parametrize("begin", [open_run, estimate_run])
def test_a_base_for_non_commercial_use_is_refused_before_the_manifest_is_read(begin, tmp_path: Path):
    with pytest.raises(LicenceError, match=r"'flux-1-dev-non-commercial-license', and base.allowed_licences has no such entry; choose"):
        begin(configure(tmp_path))
    assert not (tmp_path / "out").exists()


def test_whoever_allows_a_licence_may_use_the_base():
    assert check_licence(BaseConfig(name="flux", allowed_licences=("FLUX-1-dev-non-commercial-license",))).startswith("flux-1-dev")
    assert check_licence(BaseConfig(name="black-forest-labs/FLUX.1-dev", licence="studio contract", allowed_licences=("studio contract",)))


@pytest.mark.parametrize("name", ["embedded", "sdxl", "sd15", "stabilityai/stable-diffusion-xl-base-1.0"])
def test_bases_for_commercial_use_are_allowed_by_default(name: str):
    assert check_licence(BaseConfig(name=name)) in BaseConfig().allowed_licences


def test_a_file_inherits_from_what_it_descends_from():
    with pytest.raises(LicenceError):
        check_licence(BaseConfig(name="studio.safetensors", config="flux"))
    assert find_licence(BaseConfig(name="studio.safetensors", config="sdxl")) == "openrail++"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: MIT\n---\n# A model", "mit"),
        ("---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\n---\n", "flux-1-dev-non-commercial-license"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("---\nlicense: other\n---\n", "unknown"),
        ("# no front matter", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_card_of_a_folder_is_read_and_silence_can_be_refused(card: str | None, licence: str, tmp_path: Path):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    base = BaseConfig(name=str(tmp_path))
    assert find_licence(base) == licence
    with pytest.raises(LicenceError):
        check_licence(base.model_copy(update={"allowed_licences": ("cc0-1.0",)}))
    if licence == "unknown":
        assert check_licence(base) == "unknown"

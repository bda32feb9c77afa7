"""Credentials from a Prefect secret block: in the environment while a run lasts, and nowhere else."""

import json
import os

import pytest

from flows import rescore
from pairlora.errors import ConfigError
from pairlora.execution.rescoring import Rescoring
from tasks import credentials
from tasks.credentials import credentials_loaded


def offer(monkeypatch: pytest.MonkeyPatch, value) -> None:
    """A block of this value, without a server."""
    block = type("Block", (), {"get": lambda self: value})
    monkeypatch.setattr(credentials.Secret, "load", lambda name: block())


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_variables_of_a_block_are_there_for_the_run_and_gone_afterwards(monkeypatch: pytest.MonkeyPatch, form):
    offer(monkeypatch, form({"AWS_SECRET_ACCESS_KEY": "hunter22"}))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "earlier")
    with credentials_loaded("studio"):
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hunter22"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "earlier"


def test_without_a_block_the_environment_stays(monkeypatch: pytest.MonkeyPatch):
    before = dict(os.environ)
    with credentials_loaded(None):
        assert dict(os.environ) == before


@pytest.mark.parametrize("value", ["hunter22", ["hunter22"], {"AWS_REGION": 7}, {"PATH": "hunter22"}, {"LD_PRELOAD": "hunter22"}])
def test_a_block_of_another_kind_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, value):
    offer(monkeypatch, value)
    with pytest.raises(ConfigError, match="secret block 'studio'") as caught, credentials_loaded("studio"):
        pass
    assert "hunter22" not in str(caught.value)
    assert os.environ.get("LD_PRELOAD") != "hunter22"


def test_a_block_that_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    def fail(name):
        raise ValueError("Unable to find block document")

    monkeypatch.setattr(credentials.Secret, "load", fail)
    with pytest.raises(ConfigError, match="Prefect has no such secret block"), credentials_loaded("studio"):
        pass


def test_a_rescoring_reaches_its_store_with_the_variables_of_its_block(monkeypatch: pytest.MonkeyPatch):
    offer(monkeypatch, {"AWS_SECRET_ACCESS_KEY": "hunter22"})
    seen = []

    def plan(rescoring: Rescoring):
        seen.append(os.environ.get("AWS_SECRET_ACCESS_KEY"))
        raise ConfigError("seen enough")

    monkeypatch.setattr(rescore, "plan_rescoring", plan)
    with pytest.raises(ConfigError, match="seen enough"):
        rescore.rescore_run.fn(Rescoring(output="s3://studio/styles", secret_block="studio"))
    assert seen == ["hunter22"]

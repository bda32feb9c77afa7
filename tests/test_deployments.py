"""What a studio deploys, as far as it can be checked without its machines: images, work pools, units, and what the guide tells to type."""

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import read_settings
from docker.types import HostConfig
from prefect.settings import Settings
from prefect.utilities.templating import apply_values
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration
from pydantic import BaseModel

from deployments.automations import AWAITED
from flows import customize, shard, stylize
from pairlora.catalogue.config import CatalogueConfig, CatalogueFleetConfig
from pairlora.config import FleetConfig, RunConfig

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DEPLOYMENTS = ROOT / "deployments"


def read_instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = [line for line in (DEPLOYMENTS / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(words[0], words[2]) for line in joined.splitlines() if line and (words := line.partition(" "))]


def test_the_image_passes_the_linter():
    done = subprocess.run([BIN / "hadolint", DEPLOYMENTS / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_made_of_what_the_checkout_has_by_the_versions_of_the_tests():
    instructions = read_instructions()
    stages = [argument.split(" AS ")[1] for name, argument in instructions if name == "FROM"]
    assert stages[-2:] == ["cpu", "gpu"]
    copied = {source for name, argument in instructions if name == "COPY" for source in argument.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    kept = {line[1:] for line in (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    installed = [shlex.split(argument) for name, argument in instructions if name == "RUN" and argument.startswith("pip install")]
    assert len(installed) == 4
    assert all(words[2:4] == ["-c", "constraints.txt"] for words in installed)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {extra for words in installed for match in re.findall(r"\[(.*)\]", words[-1]) for extra in match.split(",")}
    assert wanted <= extras.keys()
    assert {"flows", "tasks", "pairlora"} <= copied


def read_template(kind: str) -> dict[str, Any]:
    return json.loads((DEPLOYMENTS / "pools" / f"{kind}.json").read_text())


def fill(configuration: type, kind: str, **variables: Any) -> Any:
    """A work pool's template as the worker of that kind fills it for one flow run."""
    template = read_template(kind)
    defaults = {name: known["default"] for name, known in template["variables"]["properties"].items() if "default" in known}
    values = defaults | {"command": "prefect flow-run execute", "name": "portion"} | variables
    return configuration(**apply_values(template["job_configuration"], values, remove_notset=True))


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_a_pool_keeps_no_credentials(kind: str):
    environment = read_template(kind)["variables"]["properties"]["env"]["default"]
    assert not [name for name in environment if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


def test_a_container_has_the_gpus_that_docker_understands():
    configuration = fill(DockerWorkerJobConfiguration, "docker", env={"A": "b"})
    assert configuration.image == "pairlora:gpu"
    assert configuration.volumes == ["pairlora-weights:/cache/huggingface"]
    (request,) = HostConfig(version="1.50", **configuration.container_create_kwargs)["DeviceRequests"]
    assert (request["Driver"], request["Count"], request["Capabilities"]) == ("nvidia", -1, [["gpu"]])
    without = fill(DockerWorkerJobConfiguration, "docker", device_requests=[])
    assert HostConfig(version="1.50", **without.container_create_kwargs)["DeviceRequests"] == []


def test_a_pod_asks_for_a_gpu_and_takes_credentials_from_a_secret():
    configuration = fill(KubernetesWorkerJobConfiguration, "kubernetes", gpus=2, image="registry/pairlora:gpu")
    spec = configuration.job_manifest["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["image"] == "registry/pairlora:gpu"
    assert container["envFrom"] == [{"secretRef": {"name": "pairlora-store", "optional": True}}]
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    assert [claims[mount["name"]] for mount in container["volumeMounts"]] == ["pairlora-weights"]
    # a fleet begins portions again, and a pod that did so too would do work twice
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_deployments_name_flows_that_are_there_and_parameters_that_they_take():
    described = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    flows = {"flows/customize.py": customize, "flows/shard.py": shard, "flows/stylize.py": stylize}
    named = {}
    for one in described:
        path, _, function = one["entrypoint"].partition(":")
        flow = getattr(flows[path], function)
        assert set(one.get("parameters", {})) <= set(flow.parameters.properties)
        RunConfig.model_validate(one.get("parameters", {}).get("run", {"manifest": "m", "output": {"url": "u"}}))
        assert f"{flow.name}/{one['name']}" not in named
        named[f"{flow.name}/{one['name']}"] = one
    asked_for = {name.partition("/")[0] for name in named} - {"customize-portion", "stylize-portion"}
    assert asked_for == set(AWAITED)  # people hear of all that they asked for, and of no portion
    nightly = named["customize-pairs/nightly"]
    assert nightly["concurrency_limit"]["limit"] == 1
    assert {"cron", "timezone"} <= nightly["schedules"][0].keys()
    assert named["stylize-catalogue/catalogue"]["work_pool"]["name"] == nightly["work_pool"]["name"]
    for fleet, settings in {"customize-fleet/fleet": FleetConfig(), "stylize-fleet/catalogue-fleet": CatalogueFleetConfig()}.items():
        # a parent that waited in the pool of its portions could take the place that they wait for
        assert named[fleet]["work_pool"]["name"] != named[settings.deployment]["work_pool"]["name"]


@pytest.mark.parametrize(
    ("kind", "known", "deployment"),
    [(RunConfig, {}, "customize-portion/gpu"), (CatalogueConfig, {"adapters": ["fox"]}, "stylize-portion/gpu")],
)
def test_settings_of_a_fleet_keep_the_portions_of_its_kind(kind: type[BaseModel], known: dict[str, Any], deployment: str):
    given = {"manifest": "m", "output": {"url": "u"}, **known}
    assert kind.model_validate(given).model_dump()["fleet"]["deployment"] == deployment
    few = kind.model_validate(given | {"fleet": {"portions": 2}}).model_dump()["fleet"]
    assert (few["portions"], few["deployment"]) == (2, deployment)


def list_settings(model: type[BaseModel]) -> Iterator[str]:
    """Names of the variables that set a part of Prefect's settings."""
    for name, known in model.model_fields.items():
        kind = known.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from list_settings(kind)
        else:
            yield f"{model.model_config.get('env_prefix', '')}{name}".upper()
            yield from (alias.upper() for alias in getattr(known.validation_alias, "choices", ()) if isinstance(alias, str))


@pytest.mark.parametrize("name", ["server.env", "worker.env"])
def test_prefect_knows_every_setting_of_the_guide(name: str):
    known = set(list_settings(Settings))
    assert [key for key in read_settings(name) if key.startswith("PREFECT_") and key not in known] == []


@pytest.mark.slow
@pytest.mark.parametrize("unit", sorted((DEPLOYMENTS / "systemd").glob("*.service")), ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_prefect_has(unit: Path):
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]  a unit's keys have capitals
    read.read(unit)
    service = read["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/.venv/bin/prefect")
    known = subprocess.run([BIN / "prefect", *words[:2], "--help"], capture_output=True, text=True, check=True).stdout
    assert [word for word in words if word.startswith("--") and word not in known] == []
    assert service["Restart"] == "always"
    assert service["EnvironmentFile"].startswith("/etc/pairlora/")

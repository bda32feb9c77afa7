"""What is shipped: the wheel holds the library and its base, and nothing of flows, tests or examples."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"pairlora"}
    assert "pairlora/bases/embedded/unet/diffusion_pytorch_model.safetensors" in names
    assert "pairlora/report/templates/index.html.j2" in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert wheel.stat().st_size < 40e6


def test_importing_the_package_is_light():
    script = "import sys, pairlora, pairlora.cli.main; sys.exit(any(name in sys.modules for name in ('torch', 'prefect', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_the_planning_half_of_the_library_imports_no_torch():
    modules = ["errors", "records", "config", "manifest.reading", "store.run_store", "cli.diagnosis", "report"]
    modules += [f"execution.{name}" for name in ("planning", "runs", "estimates")]
    modules += [f"catalogue.{name}" for name in ("planning", "runs", "costs", "export")]
    script = f"import sys\nfor name in {modules}: __import__(f'pairlora.{{name}}')\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0

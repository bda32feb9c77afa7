"""The how-to pages do what they say, links lead somewhere, and the package's own names are light and complete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pairlora
from pairlora.bases.loading import EMBEDDED
from pairlora.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = ("train-one-pair", "blend-styles", "without-pairlora")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: the checkout's examples, and the embedded base by its folder. What one page saves, the next one reads."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples" / "fluent", folder / "examples" / "fluent")
    (folder / "embedded").symlink_to(EMBEDDED)
    return folder


@pytest.mark.slow
def test_the_code_of_the_how_to_pages_runs(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    shorter = {"steps": 20, "content_steps": 4, "draws": 4, "learning_rate": 5e-3}  # a fifteenth of the recipe's rows
    monkeypatch.setitem(PRESETS["embedded"], "train", PRESETS["embedded"]["train"] | shorter)
    for page in PAGES:
        blocks = BLOCK.findall((ROOT / "docs" / "howto" / f"{page}.md").read_text())
        assert blocks
        code = compile("\n".join(blocks), f"{page}.md", "exec")
        exec(code, {"__name__": page})
    ours, theirs = (folder / name for name in ("cat.png", "cat-by-diffusers.png"))
    assert find_difference(ours, theirs) <= 1
    assert find_difference(folder / "clay-0.5.png", folder / "clay-2.5.png") > 20


def find_difference(first: Path, second: Path) -> int:
    """The largest difference of two pictures, of 255."""
    from PIL import Image, ImageChops

    extrema = ImageChops.difference(*(Image.open(path).convert("RGB") for path in (first, second))).getextrema()
    return max(high for _, high in extrema)  # pyright: ignore[reportGeneralTypeIssues]


def test_the_site_builds_without_a_warning(tmp_path: Path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "site" / "api.html").read_text()
    assert "learn_style" in reference
    assert "Learn what changed from" in reference


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "deployments/README.md", "integrations/comfyui/README.md"])
def test_links_of_pages_beside_the_site_lead_somewhere(page: str):
    links = [link for link in LINK.findall((ROOT / page).read_text()) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_package_has_the_names_that_it_says_and_loads_no_torch_for_that():
    script = "import sys, pairlora; dir(pairlora); pairlora.PairloraError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
    assert all(getattr(pairlora, name) is not None for name in pairlora.__all__)
    assert set(pairlora.__all__) <= set(dir(pairlora))
    with pytest.raises(AttributeError, match=r"pairlora has no 'learn'; its names are .*learn_style"):
        pairlora.learn  # noqa: B018
    assert (ROOT / "pairlora" / "py.typed").exists()

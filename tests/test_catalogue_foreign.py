"""A catalogue in the style of a LoRA file: drawn as the same adapter of the store is, from the bytes that were planned with."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from stocked_store import INK, Stock, open_drawing, write_catalogue
from test_catalogue import read_files

from pairlora.adapters.masters import read_adapter
from pairlora.adapters.routing import Role
from pairlora.bases import load_base
from pairlora.catalogue.adapters import choose_adapters
from pairlora.catalogue.config import CatalogueConfig, read_catalogue_config
from pairlora.catalogue.costs import estimate_catalogue
from pairlora.catalogue.foreign import assign_templates, name_label
from pairlora.catalogue.forgetting import find_derived_assets, forget_derived_assets
from pairlora.catalogue.identities import identify_asset, identify_styled
from pairlora.catalogue.planning import choose_run_id, plan_catalogue
from pairlora.catalogue.records import Asset, ChosenAdapter
from pairlora.catalogue.runs import close_catalogue, open_catalogue
from pairlora.errors import AdapterFileError, ConfigError, CorruptObjectError, MissingAdapterError
from pairlora.identity import identify_score
from pairlora.records import AdapterRecord, Job, Pair
from pairlora.release.exporting import find_releases, write_releases
from pairlora.release.files import Precision
from pairlora.store.pruning import carry_out, plan_pruning
from pairlora.store.run_store import RunStore

pytestmark = pytest.mark.slow

COW = "cow-face-gradient"
WORDS = "{prompt}, in bold black ink lines"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


def export(stock: Stock, folder: Path, precision: Precision = "float32", pair: str = INK, *, kohya: bool = False) -> Path:
    """The adapter of a pair as the file that users get."""
    write_releases(stock.store, find_releases(stock.store, [pair]), str(folder), precision)
    return folder / pair / ("style.kohya.safetensors" if kohya else "style.safetensors")


def write_peft(stock: Stock, folder: Path) -> Path:
    """The same as a folder of PEFT, with an alpha that doubles a halved B."""
    record = stock.store.read_marker("adapter", find_releases(stock.store, [INK])[0].record.fingerprint, AdapterRecord)
    assert record
    matrices = read_adapter(stock.store, record, Role.STYLE).matrices
    folder.mkdir(parents=True)
    tensors = {f"base_model.model.{layer}.lora_A.weight": a for layer, (a, _) in matrices.items()}
    tensors |= {f"base_model.model.{layer}.lora_B.weight": b / 2 for layer, (_, b) in matrices.items()}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    rank = len(next(iter(matrices.values()))[0])
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 2 * rank, "base_model_name_or_path": "theirs"}))
    return folder


def strip_header(path: Path) -> Path:
    """A file as a trainer writes it that keeps nothing in headers."""
    save_file(load_file(path), path)
    return path


def plan_with(stock: Stock, folder: Path, *adapters: Path | str, **settings: Any) -> CatalogueConfig:
    return stock.configure(write_catalogue(folder, {"cat.png": open_drawing(size=40)}), *map(str, adapters), **settings)


def draw_with(stock: Stock, folder: Path, adapter: Path | str, **settings: Any) -> np.ndarray:
    """The styled pixels of one asset."""
    catalogue = write_catalogue(folder, {"cat.png": open_drawing(size=40)})
    return np.asarray(read_files(stock.stylize(catalogue, str(adapter), **settings))["cat", 1.0], int)


# Drawing


def test_a_file_draws_what_the_same_adapter_of_the_store_draws(stock: Stock, tmp_path: Path):
    ours = draw_with(stock, tmp_path / "ours", INK)
    other = draw_with(stock, tmp_path / "other", COW)
    peft = write_peft(stock, tmp_path / "peft" / "ink")
    template = find_releases(stock.store, [INK])[0].template
    told = {"style_templates": {str(peft): template}}
    files: dict[str, tuple[Path, dict[str, Any]]] = {
        "diffusers": (export(stock, tmp_path / "diffusers"), {}),
        "kohya": (export(stock, tmp_path / "kohya", kohya=True), {}),
        "half": (export(stock, tmp_path / "half", "float16"), {}),
        "peft": (peft, told),
    }
    apart = np.abs(other - ours).max()
    for name, (path, settings) in files.items():
        drawn = draw_with(stock, tmp_path / f"with-{name}", path, **settings)
        assert np.abs(drawn - ours).max() <= 1 < apart, name


def test_a_folder_of_peft_and_the_weights_in_it_are_one_adapter_and_its_alpha_decides(stock: Stock, tmp_path: Path):
    folder = write_peft(stock, tmp_path / "ink")

    def identify(place: Path) -> str:
        run = plan_with(stock, tmp_path, place, style_templates={str(place): WORDS})
        return choose_adapters(stock.store, run, stock.night.base.digest)[0].fingerprint

    first = identify(folder)
    assert identify(folder / "adapter_model.safetensors") == first
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "elsewhere"}))
    assert identify(folder) == first
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    assert identify(folder) != first


@pytest.mark.parametrize(("change", "steps"), [(Path.unlink, 3), (lambda path: path.write_bytes(b"other"), 6)])
def test_a_run_goes_on_with_the_bytes_that_it_was_planned_with(stock: Stock, tmp_path: Path, change: Callable[[Path], Any], steps: int):
    path = export(stock, tmp_path)
    run = plan_with(stock, tmp_path, path, sample={"steps": steps})
    plan = open_catalogue(run)
    change(path)
    assert [one.status for one in stock.do(run, plan)] == ["done"]
    drawn = read_files(close_catalogue(run, plan, []))["cat", 1.0]
    ours = draw_with(stock, tmp_path, INK, sample={"steps": steps})
    assert np.abs(np.asarray(drawn, int) - ours).max() <= 1


def test_a_second_run_does_nothing_and_writes_no_file_again(stock: Stock, tmp_path: Path):
    run = plan_with(stock, tmp_path, export(stock, tmp_path), sample={"steps": 2})
    plan = open_catalogue(run)
    stock.do(run, plan)
    close_catalogue(run, plan, [])
    before = stock.store.list_objects("foreign")
    assert before
    assert open_catalogue(run).shards == ()
    assert stock.store.list_objects("foreign") == before


def test_a_plan_says_the_file_and_writes_nothing(stock: Stock, tmp_path: Path):
    path = strip_header(export(stock, tmp_path, "float16", COW))
    before = stock.store.list_objects("foreign"), stock.store.list_done("foreign")
    estimate = estimate_catalogue(plan_with(stock, tmp_path, INK, path, style_templates={str(path): WORDS}))
    assert estimate.adapters == (INK, "style")
    assert estimate.describe()["file of style"] == f"{path}, prompts read '{WORDS}'"
    assert (stock.store.list_objects("foreign"), stock.store.list_done("foreign")) == before


def test_a_copy_that_the_store_lost_or_damaged_is_told_and_stored_again(stock: Stock, tmp_path: Path):
    path = export(stock, tmp_path, "float16")
    run = plan_with(stock, tmp_path, path, sample={"steps": 5})
    plan = open_catalogue(run)
    (kept,) = [one for one in Path(stock.store.url).rglob("foreign/*/*.safetensors") if one.read_bytes() == path.read_bytes()]
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptObjectError, match="has another digest"):
        stock.do(run, plan)
    with pytest.raises(MissingAdapterError, match="the same command stores it again"):
        stock.do(run, plan)
    assert [one.status for one in stock.do(run, open_catalogue(run))] == ["done"]


def test_what_a_style_cannot_use_is_refused_and_with_partial_told(stock: Stock, tmp_path: Path):
    path = export(stock, tmp_path)
    text = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    extra = {f"{text}.lora_down.weight": torch.zeros(2, 12), f"{text}.lora_up.weight": torch.zeros(24, 2)}
    save_file(load_file(path) | extra, path)
    settings = {"style_templates": {str(path): WORDS}, "sample": {"steps": 2}}
    with pytest.raises(ConfigError, match=rf"1 of its keys, such as {text}: .*--partial"):
        open_catalogue(plan_with(stock, tmp_path, path, **settings))
    summary = stock.stylize(write_catalogue(tmp_path, {"cat.png": open_drawing(size=24)}), str(path), partial=True, **settings)
    assert text in Path(summary.report_url).read_text()
    assert text in estimate_catalogue(plan_with(stock, tmp_path, path, partial=True, **settings)).describe()["file of style"]


def test_a_file_for_another_base_is_refused_by_the_plan_or_by_the_worker_that_alone_has_the_base(stock: Stock, tmp_path: Path):
    path = tmp_path / "wide.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.zeros(2, 7), f"{layer}.lora_B.weight": torch.zeros(7, 2)}, path)
    run = plan_with(stock, tmp_path, path, style_templates={str(path): WORDS})
    with pytest.raises(ConfigError, match="it is for another base"):
        open_catalogue(run)
    elsewhere = run.model_copy(update={"base": run.base.model_copy(update={"name": "studio/unknown-here", "revision": "1"})})
    plan = plan_catalogue(elsewhere, stock.store, stock.night.base.digest, remember=True)
    with pytest.raises(AdapterFileError, match=r"wide: .*it is for another base"):
        stock.do(run, plan)


# Names and refusals


def test_all_that_is_wrong_with_all_adapters_is_one_error(stock: Stock, tmp_path: Path):
    mute = strip_header(export(stock, tmp_path / "mute"))
    words = tmp_path / "words.safetensors"
    words.write_bytes(b"no tensors")
    names = (INK, mute, words, tmp_path / "gone.safetensors", "fox-high-contrasts", "http://x.org/a.safetensors", INK[:-1] + "x")
    with pytest.raises(ConfigError) as refused:
        open_catalogue(plan_with(stock, tmp_path, *names, style_templates={INK: WORDS}))
    said = str(refused.value).splitlines()
    assert said[0] == "7 adapters cannot be used:"
    for line, part in zip(
        said[1:],
        (
            f"style_templates['{INK}']: is no file",
            "does not say how prompts read in its style, give --style-template",
            "not a safetensors file",
            "gone.safetensors cannot be read: No such file or directory",
            "did you mean 'fox-high-contrast'",
            "http://x.org/a.safetensors cannot be opened; name a file",
            "did you mean 'fox-high-contrast'",
        ),
        strict=False,
    ):
        assert part in line


def test_one_adapter_under_two_names_is_refused(stock: Stock, tmp_path: Path):
    path = export(stock, tmp_path)
    copy = path.with_name("copy.safetensors")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="are one adapter; name it once"):
        open_catalogue(plan_with(stock, tmp_path, path, copy))


def test_labels_are_names_of_files_and_tell_adapters_apart(stock: Stock, tmp_path: Path):
    first, second = export(stock, tmp_path / "a"), export(stock, tmp_path / "b", pair=COW)
    adapters = choose_adapters(stock.store, plan_with(stock, tmp_path, first, second, INK), stock.night.base.digest)
    assert [one.label for one in adapters] == [*(f"style@{one.fingerprint[:8]}" for one in adapters[:2]), INK]
    assert name_label("s3://bucket/loras/Bold Ink (v2).safetensors") == "Bold-Ink-v2"
    assert name_label("/x/peft-folder/") == "peft-folder"


def test_an_adapters_url_is_that_adapter_and_one_of_another_store_is_told_what_to_do(stock: Stock, tmp_path: Path):
    fingerprint = find_releases(stock.store, [INK])[0].record.fingerprint
    found = choose_adapters(stock.store, plan_with(stock, tmp_path, f"{stock.store.url}/adapters/{fingerprint}"), stock.night.base.digest)
    assert (found[0].label, found[0].file) == (INK, None)
    with pytest.raises(ConfigError, match=r"lies in another store than .*`pairlora export s3://others/out"):
        open_catalogue(plan_with(stock, tmp_path, f"s3://others/out/adapters/{fingerprint}/x.safetensors"))


def test_a_folder_that_is_called_like_a_pair_is_no_file(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / INK).mkdir()
    monkeypatch.chdir(tmp_path)
    (adapter,) = choose_adapters(stock.store, plan_with(stock, tmp_path, INK), stock.night.base.digest)
    assert adapter.job


def test_templates_go_to_files_in_their_order_and_one_too_many_is_refused():
    names = ("fox", "a.safetensors", "s3://bucket/b.safetensors")
    assert assign_templates(names, ["{prompt} A", "{prompt} B"]) == {names[1]: "{prompt} A", names[2]: "{prompt} B"}
    with pytest.raises(ConfigError, match="was given 3 times, and 2 adapters are files"):
        assign_templates(names, ["{prompt}"] * 3)
    values = {"manifest": "a.csv", "output": {"url": "out"}, "adapters": ["a.safetensors"]}
    with pytest.raises(ConfigError, match=r"is of no adapter.*has no \{prompt\} in it"):
        read_catalogue_config(values | {"style_templates": {"a.safetensor": "in ink"}})


def test_another_template_is_another_run_and_other_pictures(stock: Stock, tmp_path: Path):
    path, now = export(stock, tmp_path), datetime.now(UTC)

    def plan(template: str) -> tuple[str, str]:
        run = plan_with(stock, tmp_path, path, style_templates={str(path): template})
        plan = plan_catalogue(run, stock.store, stock.night.base.digest)
        return choose_run_id(run, stock.store, plan.manifest_sha256, plan.adapters, now), plan.jobs[0].fingerprint

    first, second = plan(WORDS), plan("{prompt} in chalk")
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_identities_of_adapters_of_the_store_are_what_they_were_before_files(tmp_path: Path):
    """Where one of these moves, assets that studios have would be drawn again."""
    pair = Pair(
        row=1,
        pair_id="fox",
        content="c.png",
        style="s.png",
        content_prompt="a {identifier} fox",
        style_template="{prompt}, in ink",
        identifier="sbu",
    )
    job = Job(pair=pair, content_sha256="c" * 64, style_sha256="d" * 64, train={"resolution": 64}, fingerprint="f" * 64)
    settings = {"manifest": "icons.csv", "output": {"url": "out"}, "adapters": ["fox"]}
    run = read_catalogue_config(settings | {"sample": {"steps": 4, "relative_strengths": (0.0, 1.0)}})
    asset = Asset(row=1, asset_id="cat", image="cat.png", prompt="a cat")
    adapter = ChosenAdapter(label="fox", fingerprint="f" * 64, job=job)
    given: dict[str, Any] = {"digests": {"image": "a" * 64, "mask": ""}, "base_digest": "b"}
    assert [
        identify_styled(run, asset, adapter, 1.0, **given),
        identify_styled(run, asset, None, 0.0, **given),
        identify_asset(run, asset, [adapter], truths={}, encoders={"clip": "embedded"}, **given),
        identify_score("i", pair, compared={"content": "c", "style": None}, encoders={"direction": "clip"}),
        choose_run_id(run, RunStore(str(tmp_path)), "m" * 64, [adapter], datetime(2026, 1, 1, tzinfo=UTC)),
    ] == [
        "29426b32d790e6921c2ea5f070edea2de9e2730d6169bb04848e6638ba2a4c17",
        "554313f0eaa4b4722fdb7ff3b5d85305ec1837ed76700b8efcc6228d04409945",
        "67684217965282f3a34c6d1670d3a5758f26ae0cec68c4ed80cb0f1e0208e5b8",
        "1b1c00cdc82da81f9e6ef6efd991630e2762e63749802a53ed9062022f290117",
        "catalogue-20260101T000000Z-ad5363",
    ]


# Scores and report


def test_what_compares_with_a_pair_has_no_value_for_a_file_and_the_rest_is_measured(stock: Stock, tmp_path: Path):
    open_drawing("fox").save(tmp_path / "truth.png")
    rows = {f"{name}.png": open_drawing(name, 32) for name in ("fox", "pig-face", "teddy-bear", "cow-face", "strawberry")}
    summary = stock.stylize(
        write_catalogue(tmp_path, rows, truth={"style": "truth.png", INK: "truth.png"}), INK, str(export(stock, tmp_path / "x"))
    )
    scores = pd.read_parquet(summary.table_urls["scores"])
    styled = scores[scores.strength > 0]
    empty = {name: set(styled.query("adapter == @name and value.isna()").metric) - {"spread"} for name in (INK, "style")}
    assert empty == {
        INK: set(),
        "style": {"direction", "progress", "style_similarity", "content_leakage", "subject_leakage"},
    }
    known = set(scores.query("adapter == 'style' and value.notna()").metric)
    assert known >= {"structure_ssim", "structure_similarity", "text_alignment", "truth_similarity", "reconstruction_psnr"}
    page = Path(summary.report_url).read_text()
    assert '<th scope="row">style</th><td>1</td><td>–</td><td>–</td>' in page
    assert "Adapters that are files" in page
    reasons = pd.read_parquet(summary.table_urls["assets"]).oddness_reason
    assert reasons.str.contains("worse than the median").all()


# Pruning and forgetting


def test_pruning_keeps_a_file_that_a_catalogue_names_and_no_other(stock: Stock, tmp_path: Path):
    store = RunStore(str(tmp_path / "store"))
    later = datetime.now(UTC) + timedelta(days=90)
    kept, left = export(stock, tmp_path / "kept"), export(stock, tmp_path / "left", pair=COW)
    plan = {}
    for path in (kept, left):
        run = plan_with(stock, tmp_path, path).model_copy(update={"output": stock.configure(tmp_path).output})
        run = run.model_copy(update={"output": run.output.model_copy(update={"url": store.url})})
        plan[path] = open_catalogue(run)
    carry_out(store, plan_pruning(store, timedelta(days=30), later))
    assert len(store.list_objects("foreign")) == len(store.list_done("foreign")) == 2
    for key in store.list_objects(f"runs/{plan[left].run_id}"):
        store.drop_payload(key)
    carry_out(store, plan_pruning(store, timedelta(days=30), datetime.now(UTC)))
    assert len(store.list_objects("foreign")) == 2  # what is younger than a day stays
    carry_out(store, plan_pruning(store, timedelta(days=30), later))
    assert store.list_done("foreign") == {plan[kept].adapters[0].fingerprint}
    assert len(store.list_objects("foreign")) == 1


def test_a_forgotten_file_leaves_nothing_that_was_drawn_with_it_and_is_not_taken_again(tmp_path: Path):
    """Forgotten by its own digest, or with a picture that the adapter was learned from, of which it is a copy."""
    stock = Stock(load_base("embedded"), tmp_path)
    ink = export(stock, tmp_path).rename(tmp_path / "ink.safetensors")
    cow = export(stock, tmp_path, "float16", COW).rename(tmp_path / "cow.safetensors")
    catalogue = write_catalogue(tmp_path / "icons", {"fox.png": open_drawing("fox", 20)})
    summary = stock.stylize(catalogue, COW, str(ink), str(cow))
    drawn = pd.read_parquet(summary.table_urls["styled"]).query("strength > 0").set_index("adapter").url

    def forget(digest: str, learned: set[str]) -> set[str]:
        forget_derived_assets(stock.store, find_derived_assets(stock.store, digest, learned))
        return {label for label, url in drawn.items() if Path(url).exists()}

    assert forget(hashlib.sha256(ink.read_bytes()).hexdigest(), set()) == {COW, "cow"}
    assert forget("0" * 64, {find_releases(stock.store, [COW])[0].record.fingerprint}) == set()
    assert not stock.store.list_objects("foreign")
    assert not stock.store.list_done("foreign")
    assert "Adapters that are files" not in Path(summary.report_url).read_text()
    with pytest.raises(ConfigError, match=r"(?s)ink.* was forgotten in this store.*cow.* was forgotten in this store"):
        open_catalogue(stock.configure(catalogue, str(ink), str(cow)))

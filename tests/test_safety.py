"""What strangers can put in our way: pickles, headers that lie, markup. Nothing of it is run, and each has an error with a name."""

import html.parser
import json
import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from staged_run import Staged
from tiny_base import make_pipeline

from pairlora.adapters.files import decode_adapter
from pairlora.bases import load_base
from pairlora.bases.loading import EMBEDDED
from pairlora.errors import AdapterFileError, BaseModelError, CorruptObjectError, UnsafeUrlError
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.execution.drawing import decode_latents
from pairlora.store.checkpoints import decode_checkpoint
from pairlora.store.run_store import RunStore

# Pickles


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that leaves a mark where anybody reads it; nobody may."""
    mark = tmp_path / "exploded"
    data = pickle.dumps(Bomb(mark))
    pickle.loads(data)
    mark.rmdir()  # it works
    yield data
    assert not mark.exists()


@pytest.mark.parametrize("decode", [decode_adapter, decode_checkpoint, decode_latents])
def test_a_pickle_in_place_of_a_payload_is_no_payload(bomb: bytes, decode):
    with pytest.raises((AdapterFileError, CorruptObjectError)):
        decode(bomb)


def test_a_pickle_in_place_of_a_checkpoint_of_the_store_is_not_read(bomb: bytes, tmp_path: Path):
    store = RunStore(str(tmp_path / "store"))
    store.put_checkpoint("abc", bomb)
    data = store.read_checkpoint("abc")
    assert data is not None
    with pytest.raises(CorruptObjectError):
        decode_checkpoint(data)


@pytest.fixture(scope="module")
def pickled_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder whose weights are good, and pickles."""
    folder = tmp_path_factory.mktemp("pickled")
    make_pipeline(torch.float32).save_pretrained(folder, safe_serialization=False)
    assert list(folder.rglob("*.bin"))
    return folder


def test_a_base_whose_weights_are_pickles_is_refused(pickled_base: Path):
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(str(pickled_base))


def test_pickles_planted_in_a_base_folder_are_not_read(bomb: bytes, tmp_path: Path):
    folder = tmp_path / "base"
    make_pipeline(torch.float32).save_pretrained(folder)
    for weights in list(folder.rglob("*.safetensors")):
        for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.ckpt", "model.pkl"):
            weights.with_name(name).write_bytes(bomb)
    load_base(str(folder))


def test_a_clip_whose_weights_are_pickles_is_refused(tmp_path: Path, bomb: bytes):
    for path in (EMBEDDED / "clip").iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(BaseModelError, match="CLIP"):
        ClipEncoder(str(tmp_path))


def test_prefect_is_told_to_keep_no_results_and_to_look_for_none():
    from prefect.cache_policies import NO_CACHE
    from prefect.tasks import Task

    from flows import customize
    from tasks import gpu, storage

    tasks = [one for module in (gpu, storage) for one in vars(module).values() if isinstance(one, Task)]
    assert len(tasks) >= 3
    assert all(one.cache_policy == NO_CACHE and one.persist_result is False for one in tasks)
    assert customize.customize_pairs.persist_result is False


# Headers that lie


def frame(header: bytes, size: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + body


def describe(**facts) -> bytes:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | facts
    return json.dumps({"unet.a.lora_A.weight": tensor, "unet.a.lora_B.weight": tensor}).encode()


HOSTILE = {
    "nothing": b"",
    "a length alone": struct.pack("<Q", 8),
    "a length of all memory": frame(b"{}", 2**63),
    "a length beyond the file": frame(b"{}", 2**20),
    "no json": frame(b"{" * 64),
    "deep json": frame(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "no text": frame(b"\xff\xfe" * 32),
    "a list": frame(b"[]"),
    "a shape of all memory": frame(describe(shape=[2**40, 2**40]), body=bytes(8)),
    "a shape that overflows": frame(describe(shape=[2**63, 4]), body=bytes(8)),
    "a negative shape": frame(describe(shape=[-2]), body=bytes(8)),
    "offsets outside": frame(describe(data_offsets=[0, 2**40]), body=bytes(8)),
    "offsets backwards": frame(describe(data_offsets=[8, 0]), body=bytes(8)),
    "offsets that overlap": frame(describe(), body=bytes(8)),
    "another type": frame(describe(dtype="PICKLE"), body=bytes(8)),
    "metadata that is no map": frame(b'{"__metadata__": [1]}'),
    "metadata that is nested": frame(b'{"__metadata__": {"step": {"a": 1}}}'),
    "no tensors": frame(b"{}"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("decode", [decode_adapter, decode_checkpoint, decode_latents])
def test_a_safetensors_header_that_lies_is_an_error_with_a_name(decode, name: str):
    with pytest.raises((AdapterFileError, CorruptObjectError)):
        decode(HOSTILE[name])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_single_file_base_whose_header_lies_is_refused(tmp_path: Path, name: str):
    path = tmp_path / "base.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BaseModelError, match=r"base\.safetensors"):
        load_base(str(path), config="embedded")


@pytest.mark.parametrize("name", ["a length of all memory", "a shape of all memory"])
def test_weights_of_a_base_folder_whose_header_lies_are_refused(tmp_path: Path, name: str):
    make_pipeline(torch.float32).save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(HOSTILE[name])
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(str(tmp_path))


def test_weights_of_a_clip_whose_header_lies_are_refused(tmp_path: Path):
    shutil.copytree(EMBEDDED / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(HOSTILE["a length of all memory"])
    with pytest.raises(BaseModelError, match="CLIP"):
        ClipEncoder(str(tmp_path / "clip"))


# What a store may be asked for


@pytest.mark.parametrize(
    "key", ["done/adapter/ab/abc.json", "runs/run/run.json", "runs/run/parts/plan.parquet", "checkpoints/a/latest.json"]
)
def test_what_no_report_links_is_not_shown(tmp_path: Path, key: str):
    store = RunStore(str(tmp_path))
    (tmp_path / key).parent.mkdir(parents=True)
    (tmp_path / key).write_bytes(b"secret")
    with pytest.raises(UnsafeUrlError, match="belongs to no report"):
        store.read_shown(key)


# Markup

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></textarea></style><!--"


class Elements(html.parser.HTMLParser):
    """The elements of a page that could do something, and every attribute of an event."""

    def __init__(self, page: str):
        super().__init__()
        self.scripts, self.events, self.sources = 0, [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.events += [name for name, _ in attrs if name.startswith("on")]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "action", "formaction", "xlink:href")]


def stage_evil(folder: Path) -> Staged:
    """A run whose every free text is markup: prompts, group, licence, file names, errors, comments, versions."""
    run = Staged(folder)
    for row, status in ((1, "done"), (2, "failed")):
        job = run.add_job(row, f"pair-{row}", prompts=(EVIL, "a fox"))
        evil = {"group": EVIL, "licence": EVIL, "consent": EVIL, "content_prompt": EVIL, "style_template": EVIL + "{prompt}"}
        job = job.model_copy(update={"pair": job.pair.model_copy(update=evil)})
        run.jobs[-1] = job
        run.settle(job, status, error_class="DivergedError" * (row - 1), error_message=EVIL * (row - 1), device=EVIL)
        if status == "done":
            run.add_adapter(job)
            run.add_images(job)
    run.unplanned = [
        one.model_copy(update={"status": "invalid", "row": 9, "pair_id": EVIL, "error_message": EVIL}) for one in run.outcomes[:1]
    ]
    run.run = run.run.model_copy(update={"manifest": f"s3://studio/{EVIL}.csv"})
    return run


def test_markup_in_any_text_of_a_run_stays_text(tmp_path: Path):
    run = stage_evil(tmp_path)
    index = Path(run.build().report_url)
    pages = [index, *index.parent.glob("pairs/*.html")]
    assert len(pages) >= 2
    for page in pages:
        found = Elements(text := page.read_text())
        assert "alert(1)" in text  # it is shown
        assert (found.scripts, found.events) == (1, [])
        assert not [source for source in found.sources if source == "x" or source.startswith("javascript:")]

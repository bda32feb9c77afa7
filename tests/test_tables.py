"""Files of manifests: three formats, one meaning, bounded memory, and every file that is no manifest refused with its remedy."""

import hashlib
import io
import json
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from manifest_files import FULL, ROW, TRAIN, fail_to_load, list_problems, read_pair, write_csv, write_jsonl, write_parquet
from pyarrow import parquet

from pairlora.errors import ManifestError
from pairlora.manifest.reading import digest_manifest, iterate_rows, load_pairs
from pairlora.records import Pair


def test_a_row_becomes_a_pair_with_absolute_urls(tmp_path: Path):
    pairs, bad_rows = load_pairs(write_csv(tmp_path / "manifest.csv", [FULL]), TRAIN, skip_bad_rows=False)
    assert bad_rows == []
    assert pairs == [
        Pair(
            row=1,
            pair_id="dog",
            content=str(tmp_path / "plates/dog.png"),
            style=str(tmp_path / "plates/dog_ink.png"),
            content_prompt="a photo of a {identifier} dog",
            style_template="{prompt} in ink style",
            identifier="sks",
            test_prompts=("a cat", 'a "red" car,\nparked'),
            truth={"a cat": str(tmp_path / "truth/cat.png")},
            group="ink",
            licence="CC0-1.0",
            consent="given, 2026",
            overrides={"steps": 500, "learning_rate": 0.001},
        )
    ]


def test_all_formats_give_equal_pairs(tmp_path: Path):
    rows = [
        FULL,
        {**ROW, "pair_id": "cat", "truth": {"a photo of a dog": "t.png"}, "overrides": {"content_rank": 32}},
        {**ROW, "pair_id": "bird"},
    ]
    maps = {"truth": pa.map_(pa.string(), pa.string()), "overrides": pa.map_(pa.string(), pa.float64())}
    texts = [{**row, **{name: json.dumps(row[name]) for name in ("test_prompts", "truth", "overrides") if name in row}} for row in rows]
    urls = [
        write_csv(tmp_path / "a.csv", rows),
        write_jsonl(tmp_path / "b.jsonl", rows),
        write_jsonl(tmp_path / "c.ndjson", texts),
        write_parquet(tmp_path / "d.parquet", rows),
        write_parquet(tmp_path / "e.parquet", rows, **maps),
        write_parquet(tmp_path / "f.parquet", texts),
    ]
    first, *others = [load_pairs(url, TRAIN, skip_bad_rows=False)[0] for url in urls]
    assert len(first) == 3
    for pairs in others:
        assert pairs == first


def test_values_are_stripped(tmp_path: Path):
    pair = read_pair(tmp_path, pair_id=" dog ", content=" plates/dog.png\n", test_prompts=[" a cat "], truth={"a cat ": " t.png "})
    assert pair.pair_id == "dog"
    assert pair.content == str(tmp_path / "plates/dog.png")
    assert pair.test_prompts == ("a cat",)
    assert pair.truth == {"a cat": str(tmp_path / "t.png")}


def test_null_is_as_absent(tmp_path: Path):
    empty = dict.fromkeys(("identifier", "test_prompts", "truth", "group", "licence", "consent", "overrides"))
    assert read_pair(tmp_path, **empty) == read_pair(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path):
    url = write_csv(tmp_path / "manifest.csv", [FULL])
    plain = load_pairs(url, TRAIN, skip_bad_rows=False)
    text = Path(url).read_text(encoding="utf-8")
    Path(url).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_pairs(url, TRAIN, skip_bad_rows=False) == plain


def test_blank_lines_are_no_rows(tmp_path: Path):
    for url in (
        write_csv(tmp_path / "a.csv", [ROW, {**ROW, "pair_id": "cat"}]),
        write_jsonl(tmp_path / "b.jsonl", [ROW, {**ROW, "pair_id": "cat"}]),
    ):
        Path(url).write_text("\n\n".join(Path(url).read_text().splitlines()) + "\n\n")
        assert [(row.row, row.pair_id) for row in iterate_rows(url, TRAIN)] == [(1, "dog"), (2, "cat")]


def test_json_over_several_lines_of_a_cell_is_read(tmp_path: Path):
    prompts = json.dumps(["a cat", "a dog"], indent=2)
    (pair,) = load_pairs(write_csv(tmp_path / "m.csv", [{**ROW, "test_prompts": prompts}]), TRAIN, skip_bad_rows=False)[0]
    assert pair.test_prompts == ("a cat", "a dog")


def test_a_manifest_is_read_from_any_file_system():
    fsspec.filesystem("memory").pipe("/nightly/manifest.jsonl", json.dumps(ROW).encode())
    (pair,) = load_pairs("memory://nightly/manifest.jsonl", TRAIN, skip_bad_rows=False)[0]
    assert pair.content == "memory://nightly/plates/dog.png"


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path):
    error = fail_to_load(write_csv(tmp_path / "m.csv", [{name: cell for name, cell in ROW.items() if name != "style"}]))
    assert error.count == 1
    assert "column 'style': is missing; add it; the manifest has 'pair_id', 'content', 'content_prompt', 'style_template'" in str(error)


def test_an_unknown_column_is_named_with_the_nearest(tmp_path: Path):
    rows = [{**ROW, "Style-Tmplate": "x"}]
    for url in (write_csv(tmp_path / "m.csv", rows), write_parquet(tmp_path / "m.parquet", rows), write_jsonl(tmp_path / "m.jsonl", rows)):
        error = fail_to_load(url)
        assert error.count == 1
        assert "did you mean 'style_template'?" in str(error)


def test_a_repeated_column_is_refused(tmp_path: Path):
    (tmp_path / "m.csv").write_text(",".join([*ROW, "style"]) + "\n" + ",".join([*ROW.values(), "x"]) + "\n")
    error = fail_to_load(str(tmp_path / "m.csv"))
    assert "column 'style': stands in the header 2 times; keep one of them" in str(error)


def test_all_problems_of_the_header_are_told_together(tmp_path: Path):
    error = fail_to_load(write_csv(tmp_path / "m.csv", [{"id": "dog", "contents": "a.png"}]))
    assert error.count == 7


def test_problems_of_the_header_are_not_skipped(tmp_path: Path):
    assert fail_to_load(write_csv(tmp_path / "m.csv", [{**ROW, "colour": "x"}]), skip_bad_rows=True).count == 1


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_a_manifest_without_rows_is_refused(tmp_path: Path, name: str):
    parquet.write_table(pa.table({key: pa.array([], pa.string()) for key in ROW}), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text(",".join(ROW) + "\n")
    (tmp_path / "m.jsonl").write_text("\n")
    assert "manifest: has no rows; give it one row per pair" in str(fail_to_load(str(tmp_path / name), skip_bad_rows=True))


def test_a_file_without_bytes_is_refused(tmp_path: Path):
    (tmp_path / "m.csv").touch()
    assert "manifest: is empty" in str(fail_to_load(str(tmp_path / "m.csv")))


def test_a_text_is_no_csv_manifest(tmp_path: Path):
    (tmp_path / "m.csv").write_text("Dear team, please draw a dog.\n")
    assert "column 'pair_id': is missing" in str(fail_to_load(str(tmp_path / "m.csv")))


def test_a_text_is_no_parquet_manifest(tmp_path: Path):
    (tmp_path / "m.parquet").write_text("Dear team, please draw a dog.\n")
    error = fail_to_load(str(tmp_path / "m.parquet"))
    assert list_problems(error)[0].row == 0
    assert "cannot be read as Parquet" in str(error)


def test_a_truncated_parquet_file_is_refused(tmp_path: Path):
    data = Path(write_parquet(tmp_path / "m.parquet", [ROW])).read_bytes()
    (tmp_path / "m.parquet").write_bytes(data[: len(data) // 2])
    assert "cannot be read as Parquet" in str(fail_to_load(str(tmp_path / "m.parquet")))


def test_a_missing_manifest_is_refused(tmp_path: Path):
    assert "there is no such file; check the URL" in str(fail_to_load(str(tmp_path / "m.csv")))


def test_a_folder_is_no_manifest(tmp_path: Path):
    (tmp_path / "m.csv").mkdir()
    assert "is a folder" in str(fail_to_load(str(tmp_path / "m.csv")))


@pytest.mark.parametrize("name", ["m.txt", "m.xlsx", "m", "csv"])
def test_a_suffix_that_is_not_known_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text("x")
    assert "name it .csv, .parquet, .jsonl or .ndjson" in str(fail_to_load(str(tmp_path / name)))


def test_another_encoding_is_refused(tmp_path: Path):
    for name in ("m.csv", "m.jsonl"):
        (tmp_path / name).write_bytes("pair_id,näme\n".encode("latin-1"))
        assert "is not UTF-8 text (invalid continuation byte at byte 0xe4); save it as UTF-8" in str(fail_to_load(str(tmp_path / name)))


@pytest.mark.parametrize("cells", [["cat", "a.png"], ["cat", *"abcd", "e"]])
def test_a_ragged_row_is_named_and_costs_no_other(tmp_path: Path, cells: list[str]):
    url = write_csv(tmp_path / "m.csv", [ROW])
    with Path(url).open("a") as file:
        file.write(",".join(cells) + "\n")
    assert f"row 2, line: has {len(cells)} cells, the header has 5; quote every text" in str(fail_to_load(url))
    pairs, bad_rows = load_pairs(url, TRAIN, skip_bad_rows=True)
    assert [pair.row for pair in pairs] == [1]
    assert [row.row for row in bad_rows] == [2]


def test_a_quote_that_is_never_closed_is_named_by_its_row(tmp_path: Path):
    url = write_csv(tmp_path / "m.csv", [ROW, {**ROW, "pair_id": "cat"}])
    with Path(url).open("a") as file:
        file.write('bird,"a.png,b.png,c,d\n' + "x,y\n" * 5)
    assert "row 3 is not CSV" in str(fail_to_load(url))


def test_a_file_of_one_endless_line_is_not_read_whole(tmp_path: Path):
    (tmp_path / "m.csv").write_bytes(b"a" * 3_000_000)
    assert "has a line of more than 1000000 characters" in str(fail_to_load(str(tmp_path / "m.csv")))


@pytest.mark.parametrize("url", ["http://host/m.csv", "simplecache::s3://b/m.csv", "shot:m.csv"])
def test_a_manifest_at_an_unsafe_url_is_refused(url: str):
    error = fail_to_load(url)
    assert list_problems(error)[0].row == 0
    assert list_problems(error)[0].remedy


def write_large(path: Path, count: int, characters: int) -> str:
    """A manifest whose rows hold so many characters that hardly compress."""
    random = np.random.default_rng(0)
    rows = ({**ROW, "pair_id": f"pair-{number}", "consent": random.bytes(characters // 2).hex()} for number in range(count))
    if path.suffix == ".csv":
        return write_csv(path, rows)
    return write_jsonl(path, rows) if path.suffix == ".jsonl" else write_parquet(path, list(rows))


@pytest.mark.parametrize(
    ("name", "count", "characters", "bound"),
    [("m.csv", 2500, 4000, 2_000_000), ("m.jsonl", 2500, 4000, 2_000_000), ("m.parquet", 5000, 2000, 9_000_000)],
)
def test_a_manifest_of_ten_megabytes_is_read_in_less(tmp_path: Path, name: str, count: int, characters: int, bound: int):
    """Parquet is read by the pages of its columns, megabytes each; read whole it takes sixteen."""
    url = write_large(tmp_path / name, count, characters)
    assert Path(url).stat().st_size > 9_000_000
    next(iter(iterate_rows(url, TRAIN)))  # what is imported and cached once is no memory of the rows
    pool = pa.total_allocated_bytes()
    tracemalloc.start()
    arrow = max(pa.total_allocated_bytes() for _ in iterate_rows(url, TRAIN)) - pool
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrow + python < bound, (arrow, python)


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_iterated_in_sixteen_megabytes(tmp_path: Path):
    path = tmp_path / "m.csv"
    with path.open("w") as file:
        file.write(",".join(ROW) + "\n")
        file.writelines(f"pair-{number},c/{number}.png,s/{number}.png,a dog,{{prompt}} in ink\n" for number in range(100_000))
    tracemalloc.start()
    count = sum(isinstance(row, Pair) for row in iterate_rows(str(path), TRAIN))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 16_000_000


def test_a_reading_that_stops_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[io.BytesIO] = []

    def open_bytes(url: str) -> io.BytesIO:
        opened.append(io.BytesIO(Path(url).read_bytes()))
        return opened[-1]

    monkeypatch.setattr("pairlora.manifest.tables.open_url", open_bytes)
    rows = iterate_rows(write_csv(tmp_path / "m.csv", [ROW, ROW]), TRAIN)
    next(rows)
    assert not opened[0].closed
    rows.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert opened[0].closed


def test_the_digest_is_that_of_the_bytes(tmp_path: Path):
    url = write_csv(tmp_path / "m.csv", [ROW])
    assert digest_manifest(url) == hashlib.sha256(Path(url).read_bytes()).hexdigest()
    fsspec.filesystem("memory").pipe("/digest/m.csv", b"abc")
    assert digest_manifest("memory://digest/m.csv") == hashlib.sha256(b"abc").hexdigest()


def test_the_digest_of_a_missing_manifest_is_refused(tmp_path: Path):
    with pytest.raises(ManifestError, match="there is no such file"):
        digest_manifest(str(tmp_path / "m.csv"))

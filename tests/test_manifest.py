"""Manifests: three formats, one meaning, and every problem named with its remedy."""

import csv
import hashlib
import io
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pairlora.config import TrainConfig
from pairlora.errors import ManifestError
from pairlora.manifest import BadRow, digest_manifest, iterate_rows, load_pairs
from pairlora.records import Pair, Problem

TRAIN = TrainConfig()
ROW: dict[str, Any] = {
    "pair_id": "dog",
    "content": "plates/dog.png",
    "style": "plates/dog_ink.png",
    "content_prompt": "a photo of a dog",
    "style_template": "{prompt} in ink style",
}
FULL: dict[str, Any] = {
    **ROW,
    "content_prompt": "a photo of a {identifier} dog",
    "identifier": "sks",
    "test_prompts": ["a cat", 'a "red" car,\nparked'],
    "truth": {"a cat": "truth/cat.png"},
    "group": "ink",
    "licence": "CC0-1.0",
    "consent": "given, 2026",
    "overrides": {"steps": 500, "learning_rate": 0.001},
}


def write_csv(path: Path, rows: Iterable[dict[str, Any]], header: Iterable[str] | None = None) -> str:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(header or dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: json.dumps(cell) if isinstance(cell, list | dict) else cell for name, cell in row.items()})
    return str(path)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> str:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        cells = [list(row[name].items()) if pa.types.is_map(kind) and row.get(name) else row.get(name) for row in rows]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(cells, kind))
    parquet.write_table(table, path)
    return str(path)


def read_problems(path: Path, **cells: Any) -> list[Problem]:
    """The problems of a good row with some cells exchanged, as JSON lines, where a cell can be anything."""
    (row,) = iterate_rows(write_jsonl(path / "manifest.jsonl", [{**ROW, **cells}]), TRAIN)
    return list(row.problems) if isinstance(row, BadRow) else []


def read_pair(path: Path, **cells: Any) -> Pair:
    (row,) = iterate_rows(write_jsonl(path / "manifest.jsonl", [{**ROW, **cells}]), TRAIN)
    assert isinstance(row, Pair), row
    return row


def list_problems(error: ManifestError) -> list[Problem]:
    return cast("list[Problem]", error.problems)


def fail_to_load(url: str, *, skip_bad_rows: bool = False) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        load_pairs(url, TRAIN, skip_bad_rows=skip_bad_rows)
    return caught.value


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


@pytest.mark.parametrize("field", list(ROW))
@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_required_field_is_a_problem(tmp_path: Path, field: str, value: str | None):
    assert [(found.row, found.field, found.what) for found in read_problems(tmp_path, **{field: value})] == [(1, field, "is empty")]


@pytest.mark.parametrize("pair_id", ["../x", "Dog", "a b", "-dog", "_dog", "a" * 65, "dög", "a/b", "dog\ncat", "."])
def test_an_id_that_is_no_slug_is_a_problem(tmp_path: Path, pair_id: str):
    (problem,) = read_problems(tmp_path, pair_id=pair_id)
    assert problem.field == "pair_id"
    assert "is not a slug" in problem.what
    assert problem.remedy == "use up to 64 of a-z, 0-9, - and _, a letter or digit first"


@pytest.mark.parametrize("pair_id", ["a", "0", "a-b_c", "a" * 64])
def test_slugs_are_ids(tmp_path: Path, pair_id: str):
    assert read_pair(tmp_path, pair_id=pair_id).pair_id == pair_id


def test_a_repeated_id_names_the_row_that_had_it(tmp_path: Path):
    rows = [{**ROW, "pair_id": "cat"}, ROW, ROW, ROW]
    error = fail_to_load(write_csv(tmp_path / "m.csv", rows))
    assert [str(problem) for problem in error.problems] == [
        "row 3, pair_id: id 'dog' repeats row 2; give each pair an id of its own",
        "row 4, pair_id: id 'dog' repeats row 2; give each pair an id of its own",
    ]


def test_ids_are_remembered_by_one_reading_alone(tmp_path: Path):
    url = write_csv(tmp_path / "m.csv", [ROW])
    assert list(iterate_rows(url, TRAIN)) == list(iterate_rows(url, TRAIN))


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("in ink style", "has no {prompt} in it"),
        ("{Prompt} in ink", "has no {prompt} in it"),
        ("{prompt} in {style}", "has braces other than those of {prompt}"),
        ("{{prompt}}", "has braces other than those of {prompt}"),
        ("{prompt} in ink }", "has braces other than those of {prompt}"),
    ],
)
def test_a_template_holds_the_prompt_and_no_other_braces(tmp_path: Path, template: str, what: str):
    problems = read_problems(tmp_path, style_template=template)
    assert f"{template!r} {what}" in [problem.what for problem in problems]
    assert {problem.field for problem in problems} == {"style_template"}


@pytest.mark.parametrize(
    ("prompt", "identifier", "field"),
    [
        ("a photo of a {identifier} dog", "", "identifier"),
        ("a photo of a dog", "sks", "identifier"),
        ("a photo of a {thing}", "", "content_prompt"),
        ("{identifier}", "sks", "content_prompt"),
    ],
)
def test_the_identifier_and_its_place_in_the_content_prompt_belong_together(tmp_path: Path, prompt: str, identifier: str, field: str):
    (problem,) = read_problems(tmp_path, content_prompt=prompt, identifier=identifier)
    assert problem.field == field


def test_truth_of_the_content_prompt_is_named_without_the_identifier(tmp_path: Path):
    cells = {"content_prompt": "a photo of a {identifier} dog", "identifier": "sks", "truth": {"a photo of a dog": "t.png"}}
    pair = read_pair(tmp_path, **cells)
    assert list(pair.truth) == list(pair.prompts)


@pytest.mark.parametrize("field", ["content", "style"])
@pytest.mark.parametrize("url", ["../dog.png", "/etc/passwd", "http://host/dog.png", "a::b", "file:///etc/passwd"])
def test_an_unsafe_url_is_a_problem_of_its_field(tmp_path: Path, field: str, url: str):
    (problem,) = read_problems(tmp_path, **{field: url})
    assert problem.field == field
    assert url in problem.what
    assert problem.remedy


@pytest.mark.parametrize("prompts", ["a cat", 5, ["a cat", ""], ["a cat", 5], {"a": "b"}, '"a cat"', [["a cat"]], [None]])
def test_test_prompts_are_a_list_of_texts(tmp_path: Path, prompts: object):
    (problem,) = read_problems(tmp_path, test_prompts=prompts)
    assert problem.field == "test_prompts"
    assert '["a cat", "a dog"]' in problem.remedy


def test_a_repeated_test_prompt_is_a_problem(tmp_path: Path):
    (problem,) = read_problems(tmp_path, test_prompts=["a cat", "a dog", " a cat"])
    assert problem.what == "'a cat' stands in it 2 times"


@pytest.mark.parametrize("text", ["[", "{'a cat': 'b.png'}", '{"a": NaN}', '{"a": "1", "a": "2"}', "[" * 100_000, "9" * 5000])
@pytest.mark.parametrize("field", ["test_prompts", "truth", "overrides"])
def test_text_that_is_not_json_is_a_problem(tmp_path: Path, field: str, text: str):
    (problem,) = read_problems(tmp_path, **{field: text})
    assert problem.field == field
    assert "is not JSON" in problem.what
    assert len(str(problem)) < 400


def test_truth_belongs_to_a_test_prompt(tmp_path: Path):
    (problem,) = read_problems(tmp_path, test_prompts=["a cat"], truth={"a dog": "t.png"})
    assert (problem.field, problem.what) == ("truth", "'a dog' is none of the test prompts")


def test_truth_of_the_content_prompt_is_allowed_where_there_are_no_test_prompts(tmp_path: Path):
    assert read_pair(tmp_path, truth={"a photo of a dog": "t.png"}).truth == {"a photo of a dog": str(tmp_path / "t.png")}
    assert len(read_problems(tmp_path, test_prompts=["a cat"], truth={"a photo of a dog": "t.png"})) == 1


@pytest.mark.parametrize(
    "truth", [["t.png"], "t.png", 5, {"a photo of a dog": 5}, {"a photo of a dog": ""}, {"a photo of a dog": "../t.png"}]
)
def test_truth_is_a_map_of_prompts_to_safe_urls(tmp_path: Path, truth: object):
    (problem,) = read_problems(tmp_path, truth=truth)
    assert problem.field == "truth"


def test_a_parquet_map_with_a_repeated_key_is_a_problem(tmp_path: Path):
    cells = pa.array([[("a photo of a dog", "a.png"), ("a photo of a dog", "b.png")]], pa.map_(pa.string(), pa.string()))
    parquet.write_table(pa.Table.from_pylist([ROW]).append_column("truth", cells), tmp_path / "m.parquet")
    (problem,) = fail_to_load(str(tmp_path / "m.parquet")).problems
    assert "is not a map with different keys" in str(problem)


def test_an_unknown_override_is_named_with_the_nearest(tmp_path: Path):
    (problem,) = read_problems(tmp_path, overrides={"learnig_rate": 0.1})
    assert str(problem) == "row 1, overrides: 'learnig_rate' is not a field of train; did you mean 'learning_rate'?"


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("steps", "500"), ("steps", 1.5), ("steps", True), ("learning_rate", -1), ("learning_rate", "inf"), ("steps", None)],
)
def test_an_override_of_the_wrong_value_is_a_problem(tmp_path: Path, field: str, value: object):
    (problem,) = read_problems(tmp_path, overrides={field: value})
    assert problem.field == f"overrides.{field}"
    assert "input should be" in problem.remedy


def test_an_infinite_override_is_a_problem(tmp_path: Path):
    cells = pa.array([[("learning_rate", float("inf"))]], pa.map_(pa.string(), pa.float64()))
    parquet.write_table(pa.Table.from_pylist([ROW]).append_column("overrides", cells), tmp_path / "m.parquet")
    assert list_problems(fail_to_load(str(tmp_path / "m.parquet")))[0].field == "overrides.learning_rate"


def test_overrides_are_checked_together_with_the_runs_own_configuration(tmp_path: Path):
    (problem,) = read_problems(tmp_path, overrides={"steps": 100})
    assert problem.what == "content_steps = 250 exceeds steps = 100"
    assert problem.remedy == "lower content_steps"
    url = write_jsonl(tmp_path / "m.jsonl", [{**ROW, "overrides": {"steps": 100}}])
    (pair,) = iterate_rows(url, TrainConfig(content_steps=50))
    assert isinstance(pair, Pair)
    assert pair.overrides == {"steps": 100}


@pytest.mark.parametrize("field", [*ROW, "identifier", "group", "licence", "consent"])
@pytest.mark.parametrize("value", [5, 1.5, True, ["a"], {"a": "b"}])
def test_what_is_not_text_is_a_problem_and_not_coerced(tmp_path: Path, field: str, value: object):
    (problem,) = read_problems(tmp_path, **{field: value})
    assert problem.field == field
    assert problem.what.endswith("not text")


def test_numbers_in_a_parquet_column_of_texts_are_problems(tmp_path: Path):
    error = fail_to_load(write_parquet(tmp_path / "m.parquet", [{**ROW, "licence": 5}, {**ROW, "pair_id": "cat", "licence": None}]))
    assert [str(problem) for problem in error.problems] == ["row 1, licence: is a number (5), not text; write it as text"]


@pytest.mark.parametrize("field", ["content_prompt", "style_template", "group"])
@pytest.mark.parametrize("character", ["\x00", "\x1b", "\ud800"])
def test_characters_that_no_report_can_hold_are_problems(tmp_path: Path, field: str, character: str):
    (problem,) = read_problems(tmp_path, **{field: f"{{prompt}} {character}" if field == "style_template" else f"a{character}"})
    assert problem.field == field
    str(problem).encode()


def test_all_problems_of_a_row_are_found(tmp_path: Path):
    problems = read_problems(
        tmp_path, pair_id="../x", content="../a.png", style="", style_template="ink", overrides={"step": 1}, colour="red"
    )
    assert sorted(problem.field for problem in problems) == ["colour", "content", "overrides", "pair_id", "style", "style_template"]


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '"text"', "null", '{"pair_id": "a", "pair_id": "b"}'])
def test_a_line_that_is_no_object_is_one_bad_row(tmp_path: Path, line: str):
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps({**ROW, 'pair_id': 'cat'})}\n")
    pairs, bad_rows = load_pairs(str(tmp_path / "m.jsonl"), TRAIN, skip_bad_rows=True)
    assert [(pair.row, pair.pair_id) for pair in pairs] == [(1, "dog"), (3, "cat")]
    assert [(bad.row, bad.pair_id, bad.problems[0].remedy) for bad in bad_rows] == [(2, "", "write one JSON object per line")]


def test_bad_rows_are_skipped_where_the_caller_says_so(tmp_path: Path):
    url = write_csv(tmp_path / "m.csv", [ROW, {**ROW, "pair_id": "cat", "style": ""}, {**ROW, "pair_id": "bird"}])
    pairs, bad_rows = load_pairs(url, TRAIN, skip_bad_rows=True)
    assert [pair.pair_id for pair in pairs] == ["dog", "bird"]
    assert [(bad.row, bad.pair_id) for bad in bad_rows] == [(2, "cat")]


def test_of_many_problems_a_hundred_are_listed_and_all_are_counted(tmp_path: Path):
    rows = [{**ROW, "pair_id": f"pair-{number}", "style": ""} for number in range(250)]
    error = fail_to_load(write_csv(tmp_path / "m.csv", rows))
    assert len(error.problems) == 100
    assert error.count == 250
    assert list_problems(error)[-1].row == 100
    assert str(error).endswith("… and 150 more")


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

    monkeypatch.setattr("pairlora.tables.open_url", open_bytes)
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

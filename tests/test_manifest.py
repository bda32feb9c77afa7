"""Rows of manifests: every problem is named with its remedy."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from manifest_files import ROW, TRAIN, fail_to_load, list_problems, read_pair, read_problems, write_csv, write_jsonl, write_parquet
from pyarrow import parquet

from pairlora.config import TrainConfig
from pairlora.manifest.reading import iterate_rows, load_pairs
from pairlora.records import Pair


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

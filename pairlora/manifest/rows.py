"""One row of a manifest on its way to a `Pair`: every problem of it is found, not the first alone."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field, ValidationError

from pairlora.config import TrainConfig
from pairlora.errors import UnsafeUrlError
from pairlora.manifest.tables import parse_json
from pairlora.records import Pair, Problem, Record
from pairlora.store.urls import Folder

REQUIRED = ("pair_id", "content", "style", "content_prompt", "style_template")
OPTIONAL = ("identifier", "test_prompts", "truth", "group", "licence", "consent", "overrides")
COLUMNS = (*REQUIRED, *OPTIONAL)

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_KINDS = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "a map", bytes: "bytes"}


class BadRow(Record):
    """A row that gives no pair, and all that is wrong with it."""

    row: int = Field(description="1-based row of the manifest, its header not counted")
    pair_id: str = Field(default="", description="the row's id, empty where it has no valid one")
    problems: tuple[Problem, ...]


def suggest(name: str, known: Collection[str]) -> str:
    """The remedy for a name that is not known: the nearest that is, else all of them."""
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"take it out, or use one of {', '.join(known)}"


class RowReader:
    """Turns the rows of one manifest into pairs; knows its folder, and the ids that it has seen."""

    required, columns = REQUIRED, COLUMNS

    def __init__(self, manifest: str, train: TrainConfig):
        self._folder = Folder(manifest)
        self._train = train.model_dump()
        self._rows: dict[str, int] = {}

    def read(self, row: int, cells: Mapping[str, Any]) -> Pair | BadRow:
        """The pair of a row, or its problems."""
        check = RowCheck(row, cells)
        check.blame_unknown(COLUMNS)
        pair_id = self._read_id(check)
        content_prompt, identifier = check.read_content_prompt()
        test_prompts = check.read_prompts()
        drawn = Pair.model_construct(content_prompt=content_prompt, test_prompts=test_prompts).prompts
        fields = {
            "content": check.read_url("content", self._folder, required=True),
            "style": check.read_url("style", self._folder, required=True),
            "content_prompt": content_prompt,
            "style_template": check.read_template(),
            "identifier": identifier,
            "test_prompts": test_prompts or (),
            "truth": self._read_truth(check, None if test_prompts is None else drawn),
            "group": check.read_text("group"),
            "licence": check.read_text("licence"),
            "consent": check.read_text("consent"),
            "overrides": check.read_overrides(self._train),
        }
        if check.problems:
            return BadRow(row=row, pair_id=pair_id, problems=tuple(check.problems))
        return Pair(row=row, pair_id=pair_id, **fields)

    def _read_id(self, check: "RowCheck") -> str:
        pair_id = check.read_text("pair_id", required=True)
        if not pair_id:
            return ""
        if _SLUG.fullmatch(pair_id) is None:
            what = f"id {shorten(pair_id)} is not a slug"
            check.blame("pair_id", what, "use up to 64 of a-z, 0-9, - and _, a letter or digit first")
            return ""
        first = self._rows.setdefault(pair_id, check.row)
        if first != check.row:
            check.blame("pair_id", f"id {pair_id!r} repeats row {first}", "give each pair an id of its own")
        return pair_id

    def _read_truth(self, check: "RowCheck", drawn: Collection[str] | None) -> dict[str, str]:
        """URLs by prompt. `drawn` are the prompts of the pair, None where they are wrong themselves."""
        truth = {}
        for prompt, url in check.read_map("truth", "a prompt and a URL").items():
            prompt = prompt.strip()
            if drawn is not None and prompt not in drawn:
                check.blame("truth", f"{shorten(prompt)} is none of the test prompts", "add it to test_prompts or take it out")
            if not isinstance(url, str) or not url.strip():
                check.blame("truth", f"the value of {shorten(prompt)} is not a URL", "write the URL of a picture as text")
                continue
            truth[prompt] = check.resolve("truth", self._folder, url.strip())
        return truth


class RowCheck:
    """The cells of one row; reading a field records what is wrong with it and gives something empty instead."""

    def __init__(self, row: int, cells: Mapping[str, Any]):
        self.row = row
        self.cells = cells
        self._problems: dict[Problem, None] = {}

    @property
    def problems(self) -> list[Problem]:
        """What was found so far, each problem once."""
        return list(self._problems)

    def blame(self, field: str, what: str, remedy: str) -> None:
        """Record a problem."""
        self._problems[Problem(row=self.row, field=field, what=what, remedy=remedy)] = None

    def blame_unknown(self, columns: Collection[str]) -> None:
        """Record the names that are none of these columns."""
        for name in self.cells.keys() - set(columns):
            self.blame(name, "is not a column of a manifest", suggest(name, columns))

    def read_url(self, field: str, folder: Folder, *, required: bool = False) -> str:
        """A field with the URL of a picture, made absolute; '' where it is absent or wrong."""
        url = self.read_text(field, required=required)
        return self.resolve(field, folder, url) if url else ""

    def resolve(self, field: str, folder: Folder, url: str) -> str:
        """A URL made absolute; '' where it may not be read."""
        try:
            return folder.resolve(url)
        except UnsafeUrlError as error:
            self.blame(field, *str(error).rsplit("; ", 1))
            return ""

    def read_text(self, field: str, *, required: bool = False) -> str:
        """A field of text, stripped; '' where it is absent or wrong."""
        value = self.cells.get(field)
        if value is not None and not isinstance(value, str):
            self.blame(field, f"is {_KINDS.get(type(value), 'a value')} ({shorten(value)}), not text", "write it as text")
            return ""
        text = (value or "").strip()
        if required and not text:
            self.blame(field, "is empty", "every row needs it")
        return self._check_characters(field, text)

    def read_content_prompt(self) -> tuple[str, str]:
        """The content prompt and the identifier: {identifier} stands in the one exactly where there is the other."""
        prompt, identifier = self.read_text("content_prompt", required=True), self.read_text("identifier")
        remedy = "write a phrase like 'a photo of a dog', or 'a photo of a {identifier} dog' where the row has an identifier"
        if re.search(r"[{}]", rest := prompt.replace("{identifier}", "")):
            self.blame("content_prompt", f"{shorten(prompt)} has braces other than those of {{identifier}}", remedy)
        if prompt and not rest.strip():
            self.blame("content_prompt", "is empty but for the identifier", remedy)
        if "{identifier}" in prompt and not identifier and "identifier" not in self._blamed():
            self.blame("identifier", "is empty and content_prompt has {identifier} in it", "fill it in, or take {identifier} out")
        if prompt and identifier and "{identifier}" not in prompt:
            self.blame("identifier", f"{shorten(identifier)} has no place in content_prompt", "write {identifier} there where it belongs")
        return prompt, identifier

    def read_template(self) -> str:
        """The style template: {prompt} in it, and no other braces."""
        template = self.read_text("style_template", required=True)
        remedy = "write a phrase like '{prompt} in digital art style'"
        if template and "{prompt}" not in template:
            self.blame("style_template", f"{shorten(template)} has no {{prompt}} in it", remedy)
        if re.search(r"[{}]", template.replace("{prompt}", "")):
            self.blame("style_template", f"{shorten(template)} has braces other than those of {{prompt}}", remedy)
        return template

    def read_prompts(self) -> tuple[str, ...] | None:
        """The test prompts, empty where the row has none; None where they are wrong."""
        value = self._read_json("test_prompts")
        if value is None:
            return () if "test_prompts" not in self._blamed() else None
        remedy = 'write a list of different texts: ["a cat", "a dog"]'
        if not isinstance(value, list) or not all(isinstance(prompt, str) and prompt.strip() for prompt in value):
            self.blame("test_prompts", f"{shorten(value)} is not a list of texts that are not empty", remedy)
            return None
        prompts = tuple(self._check_characters("test_prompts", prompt.strip()) for prompt in value)
        for prompt, count in Counter(prompts).items():
            if count > 1:
                self.blame("test_prompts", f"{shorten(prompt)} stands in it {count} times", remedy)
        return prompts

    def read_map(self, field: str, holding: str) -> dict[str, Any]:
        """A map with texts for keys, {} where it is absent or wrong."""
        value = self._read_json(field)
        if value is None or value == []:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            self.blame(field, f"{shorten(value)} is not a map with different keys", f"write an object with {holding} in each entry")
            return {}
        return value

    def read_overrides(self, train: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the training configuration, valid together with the run's own."""
        given = {name: _read_number(value) for name, value in self.read_map("overrides", "a field of train and a value").items()}
        unknown = given.keys() - TrainConfig.model_fields.keys()
        for name in sorted(unknown):
            self.blame("overrides", f"{shorten(name)} is not a field of train", suggest(name, TrainConfig.model_fields))
        known = {name: value for name, value in given.items() if name not in unknown}
        if not known:
            return {}
        try:
            config = TrainConfig.model_validate({**train, **known}, strict=True)
        except ValidationError as error:
            self._blame_overrides(error)
            return {}
        return {name: getattr(config, name) for name in known}

    def _blame_overrides(self, error: ValidationError) -> None:
        for fault in error.errors(include_url=False):
            message = fault["msg"].removeprefix("Value error, ")
            if fault["loc"]:
                field = ".".join(("overrides", *map(str, fault["loc"])))
                self.blame(field, f"is {shorten(fault['input'])}", f"{message[:1].lower()}{message[1:]}")
            else:
                what, _, remedy = message.partition("; ")
                self.blame("overrides", what, remedy)

    def _read_json(self, field: str) -> Any:
        """A list or map as it is, or from JSON text; None where it is absent, null or not JSON."""
        value = self.cells.get(field)
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        try:
            return parse_json(value)
        except ValueError as error:
            example = '["a cat", "a dog"]' if field == "test_prompts" else '{"a cat": "cat.png"}' if field == "truth" else '{"steps": 500}'
            self.blame(field, f"{shorten(value)} is not JSON ({error})", f"write it like {example}")
            return None

    def _blamed(self) -> set[str]:
        return {problem.field for problem in self._problems}

    def _check_characters(self, field: str, text: str) -> str:
        if _UNSTORABLE.search(text) is None:
            return text
        self.blame(field, "holds a control character or half a surrogate pair", "take it out")
        return ""


def shorten(value: object) -> str:
    """A value as messages quote it: one line of sixty characters at most."""
    shown = ascii(value) if isinstance(value, str) and _UNSTORABLE.search(value) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:58]}…{shown[-1]}"


def _read_number(value: Any) -> Any:
    """Columns of one number type hold integers as floats: 500.0 is 500. What is no finite number becomes text, to be refused."""
    if isinstance(value, float):
        return (int(value) if value.is_integer() else value) if math.isfinite(value) else str(value)
    return value

"""Write `examples/fluent`: pairs of one drawing in two styles, test prompts, and the ground truth that the designers drew."""

import argparse
import json
from pathlib import Path

from embedded_base.captions import write_caption
from embedded_base.drawings import BASE_SETS, HELD_OUT_SETS, Drawings, lay_out

FLAT, (GRADIENT, HIGH_CONTRAST) = BASE_SETS[0], HELD_OUT_SETS
SIZE = 256
TEMPLATES = {GRADIENT: "{prompt}, in clay relief", HIGH_CONTRAST: "{prompt}, in bold black ink lines"}
"""Chosen on the validation pairs among words that the base has drawn by and words that it has only in its vocabulary."""
GROUPS = {GRADIENT: "gradient", HIGH_CONTRAST: "high-contrast"}
SUBJECTS = {GRADIENT: ("cow-face", "hamburger", "rocket", "teddy-bear"), HIGH_CONTRAST: ("fox", "doughnut", "sailboat", "alarm-clock")}
VALIDATION = {GRADIENT: ("pig-face",), HIGH_CONTRAST: ("strawberry",)}
TESTS = ("cat-face", "penguin", "red-apple", "pizza", "automobile", "guitar")
LICENCE = "MIT, Fluent Emoji by Microsoft"


def write_picture(drawings: Drawings, folder: Path, drawn_by: str, slug: str) -> str:
    """Write one drawing on white and return its path below `folder`."""
    name = f"pictures/{slug}-{GROUPS.get(drawn_by, 'flat')}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    picture = lay_out(drawings.render(drawn_by, slug, size=SIZE - 2 * 16), size=SIZE)
    picture.save(folder / name, optimize=True)
    return name


def make_row(drawings: Drawings, folder: Path, style: str, subject: str) -> dict[str, object]:
    """The manifest row of one subject in one style."""
    prompts = [write_caption(slug, FLAT) for slug in TESTS if slug != subject]
    truths = [write_picture(drawings, folder, style, slug) for slug in TESTS if slug != subject]
    return {
        "pair_id": f"{subject}-{GROUPS[style]}",
        "content": write_picture(drawings, folder, FLAT, subject),
        "style": write_picture(drawings, folder, style, subject),
        "content_prompt": write_caption(subject, FLAT),
        "style_template": TEMPLATES[style],
        "test_prompts": prompts,
        "truth": dict(zip(prompts, truths, strict=True)),
        "group": GROUPS[style],
        "licence": LICENCE,
    }


def write_manifest(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("examples/fluent"))
    arguments = parser.parse_args()
    drawings = Drawings(arguments.node_modules)

    def rows(subjects: dict[str, tuple[str, ...]]) -> list[dict[str, object]]:
        return [make_row(drawings, arguments.out, style, subject) for style in HELD_OUT_SETS for subject in subjects[style]]

    write_manifest(arguments.out / "manifest.jsonl", rows(SUBJECTS))
    write_manifest(arguments.out / "validation.jsonl", rows(VALIDATION))
    write_manifest(arguments.out / "two-pairs.jsonl", [rows(SUBJECTS)[index] for index in (0, len(SUBJECTS[GRADIENT]))])


if __name__ == "__main__":
    main()

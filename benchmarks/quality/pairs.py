"""The pairs as pictures and manifests: the same drawings in three styles, rendered from the designers' packages."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.quality.protocol import FLAT, STYLES
from embedded_base.captions import write_caption
from embedded_base.contents import name_content
from embedded_base.drawings import Drawings, lay_out
from embedded_base.write_examples import GROUPS, LICENCE, SIZE, TEMPLATES


def write_picture(drawings: Drawings, folder: Path, drawn_by: str, slug: str, size: int) -> str:
    """Write one drawing on white, `size` pixels a side, where it is not there yet; its path below `folder`."""
    name = f"pictures-{size}/{slug}-{GROUPS.get(drawn_by, 'flat')}.png"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        lay_out(drawings.render(drawn_by, slug, size=size - size // 8), size=size).save(path, optimize=True)
    return name


def describe_row(drawings: Drawings, folder: Path, style: str, subject: str, tests: Sequence[str], *, size: int, identifier: str) -> dict:
    """The manifest row of a subject in a style. `identifier` is a rare word before the subject's name, in training alone."""
    caption, name = write_caption(subject, FLAT), name_content(subject)
    prompts = [write_caption(slug, FLAT) for slug in tests]
    return {
        "pair_id": f"{subject}-{GROUPS[style]}",
        "content": write_picture(drawings, folder, FLAT, subject, size),
        "style": write_picture(drawings, folder, style, subject, size),
        "content_prompt": caption.replace(name, f"{{identifier}} {name}") if identifier else caption,
        "identifier": identifier,
        "style_template": TEMPLATES[style],
        "test_prompts": prompts,
        "truth": dict(zip(prompts, (write_picture(drawings, folder, style, slug, size) for slug in tests), strict=True)),
        "group": GROUPS[style],
        "licence": LICENCE,
    }


def write_manifest(
    path: Path,
    node_modules: Path,
    subjects: Mapping[str, str],
    tests: Callable[[str], Sequence[str]],
    *,
    resolution: int,
    styles: Sequence[str] = STYLES,
    identifier: str = "",
) -> Path:
    """Write the manifest of all subjects in the styles, and the pictures beside it, at least 256 pixels a side.

    `tests` names the test contents for a subject of a group.
    """
    drawings, size = Drawings(node_modules), max(SIZE, resolution)
    rows = []
    for style in styles:
        for subject, group in subjects.items():
            rows.append(describe_row(drawings, path.parent, style, subject, tests(group), size=size, identifier=identifier))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

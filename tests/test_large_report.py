"""A run of 500 pairs: its first page stays light, and its pictures lie beside it."""

from pathlib import Path

import pytest
from staged_run import Staged

PAIRS = 500
MOST_BYTES = 1_500_000
"""Of the first page, whatever its pictures weigh: they are files that a browser loads as they come into sight."""


@pytest.mark.slow
def test_the_first_page_of_500_pairs_is_light(tmp_path: Path, record_property):
    staged = Staged(tmp_path)
    for row in range(1, PAIRS + 1):
        job = staged.add_job(row, f"pair-{row:03d}", prompts=("a fox in a forest with long shadows",))
        staged.settle(job)
        for strength in (0.0, 2.5):
            staged.add_image(job, job.pair.prompts[0], 0, strength)
    page = Path(staged.build().report_url)
    text = page.read_text()
    assert text.count('<li class="card"') == PAIRS
    assert "data:image" not in text
    size = len(text.encode())
    record_property("index_bytes", size)
    print(f"FIGURE report.index_bytes_of_500_pairs {size} <={MOST_BYTES}")  # noqa: T201
    assert size <= MOST_BYTES
    assert text.count('loading="lazy"') == 4 * PAIRS
    assert len(list(page.with_name("pairs").iterdir())) == PAIRS

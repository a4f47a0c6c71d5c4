"""The page of trials says no more than is tried, and names every file of them."""

import re
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "trials.md"
LEAST = 80


def test_the_page_counts_the_trials(request: pytest.FixtureRequest) -> None:
    files = {file.name for file in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    options, items = request.config.option, [item for item in request.session.items if item.get_closest_marker("trial")]
    if options.keyword or options.markexpr or options.deselect or not files <= {item.path.name for item in items}:
        pytest.skip("only a part of the suite was collected")
    if any("::" in argument for argument in request.config.args):
        pytest.skip("only a part of the suite was asked for")
    tried = Counter(item.path.name for item in items)
    rows = re.findall(r"^\|.*\| `(test_\w+\.py)` \| ([\d,]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = {name: int(count.replace(",", "")) for name, count in rows}
    assert files <= said.keys()
    more = {name: (count, tried[name]) for name, count in said.items() if name in files and count > tried[name]}
    assert not more, f"docs/trials.md says more than there are: {more}"
    assert sum(said.values()) >= LEAST

"""The suite does not shrink unseen."""

from pathlib import Path

import pytest

LEAST = 150


def test_the_suite_has_at_least_150_attacks(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.get_closest_marker("attack") is not None]
    options = request.config.option
    files = set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}
    if options.keyword or options.markexpr or options.deselect or not files <= {item.path for item in items}:
        pytest.skip("only a part of the suite was collected")
    if any("::" in argument for argument in request.config.args):
        pytest.skip("only a part of the suite was asked for")
    assert len({item.nodeid for item in items}) >= LEAST

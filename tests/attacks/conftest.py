"""Counts the attacks that were tried."""

import pytest

_COLLECTED = pytest.StashKey[int]()


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_COLLECTED] = sum(item.get_closest_marker("attack") is not None for item in session.items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(_COLLECTED, 0)
    if count:
        terminalreporter.write_line(f"{count} attacks")

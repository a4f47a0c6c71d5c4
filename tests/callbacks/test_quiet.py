import importlib
import logging
import warnings

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

import callbacks.quiet
from callbacks.quiet import quiet
from gssr.network import GoalNetwork


def test_advertisements_are_dropped_and_facts_are_not(caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    quiet()
    with caplog.at_level(logging.INFO):
        rank_zero_info("💡 Tip: For seamless cloud logging, try installing [something]")
        rank_zero_info("GPU available: False, used: False")
    assert [record.getMessage() for record in caplog.records] == ["GPU available: False, used: False"]


def test_the_hooks_of_the_network_are_no_news() -> None:
    hooks = [name for name in vars(GoalNetwork) if name.endswith("_batch_transfer")]
    with warnings.catch_warnings(record=True) as found:
        quiet()
        for hook in hooks:
            rank_zero_warn(f"You have overridden `{hook}` in `LightningModule` but have passed in a data module")
    assert hooks and not found


def test_other_warnings_pass() -> None:
    with pytest.warns(UserWarning, match="the loss is odd"):
        quiet()
        rank_zero_warn("the loss is odd")


def test_quiet_is_for_the_command_line_alone() -> None:
    """Importing the callbacks changes no filter of a program that uses them."""
    before = list(warnings.filters)
    importlib.reload(callbacks.quiet)
    assert warnings.filters == before

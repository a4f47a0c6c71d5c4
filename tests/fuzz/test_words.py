"""Files that people write or edit: the config of a run, and templates of goals."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datamodules.storms.datamodule import GOALS_FILE
from gssr.runs.config import read_run_config
from gssr.runs.folders import CONFIG
from gssr.runs.options import DEFAULT_CONFIG
from gssr.sequences.goals import GoalWriter
from gssr.sequences.record import Record
from tests.fuzz.damage import TREES, changed, damaged, fuzz, read_or_refuse


def _yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


def _file_like(good: Path) -> st.SearchStrategy[bytes]:
    content = good.read_bytes()
    tree = yaml.safe_load(content)
    deep = st.builds(
        lambda mark, n: mark * n, st.sampled_from([b"[", b"{a: ", b"- ", b"!!set {"]), st.integers(1, 5000)
    )
    return st.one_of(damaged(content), changed(tree).map(_yaml), TREES.map(_yaml), st.binary(max_size=60), deep)


@fuzz(60)
@given(content=_file_like(DEFAULT_CONFIG))
def test_the_config_of_a_run(place: Path, content: bytes) -> None:
    (place / CONFIG).write_bytes(content)
    options = read_or_refuse(lambda: read_run_config(place))
    assert options is None or isinstance(options, dict)


@fuzz(60)
@given(content=_file_like(GOALS_FILE), seed=st.integers(0, 99))
def test_templates_of_goals(place: Path, content: bytes, seed: int) -> None:
    (place / "goals.yaml").write_bytes(content)
    writer = read_or_refuse(lambda: GoalWriter.read(place / "goals.yaml"))
    if writer is None:
        return
    silent = np.full(4, np.nan, np.float32)
    values = np.random.default_rng(seed).normal(50, 20, (8, 4)).astype(np.float32)
    record = Record("s", np.arange(8) * 6.0, values, [None] * 8, None, silent, silent, 3)
    for mode in ("train", "combinations", "all"):
        written = read_or_refuse(lambda mode=mode: writer.write(record, mode, np.random.default_rng(seed)))
        assert written is None or written.goal is None or isinstance(written.goal, str)

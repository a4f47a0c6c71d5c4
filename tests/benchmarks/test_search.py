"""Parts of the benchmark of search that compute something of their own."""

import numpy as np
import pytest
import torch

from benchmarks.search import aggregation
from datamodules.facts.language import Language
from gssr.backbone import FrozenBackbone


def test_documents_that_were_read_apart_are_put_together() -> None:
    facts = FrozenBackbone("nano-facts")
    (batch,) = aggregation.batches(Language(), 4, 0)
    assert batch["documents"].shape[:2] == (4, 8) and batch["other"].shape == (4, 0)
    order = np.arange(8)
    found = aggregation.together(facts, batch["documents"], order)
    for own, same in zip(found["composed, in order"], found["composed, in another order"], strict=True):
        assert torch.equal(own.recurrent, same.recurrent)
    first, second = (found[name][0].recurrent.float() for name in ("read in order", "composed, in order"))
    # The lowest layer reads the tokens alone; its first ones see the convolution of a text's beginning.
    assert (first - second).norm() < 0.15 * first.norm()
    assert (first - found["mean of states"][0].recurrent.float()).norm() > 0.3 * first.norm()
    right = aggregation.measure(facts, Language(), 4, 0)
    assert np.mean(right["apart, the right document (told)"]) > 0.9
    assert np.mean(right["composed, in order"]) > np.mean(right["the last document alone"]) + 0.2
    share, difference, _ = aggregation.summary([right], "composed, in order")
    assert share - difference == np.mean(right["read in order"])


def test_norms_are_compared_layer_by_layer() -> None:
    pytest.importorskip("sklearn", reason="the extra bench is not installed")
    from benchmarks.search import injections

    off = {"distinct": [0.5, 0.7], "target": [0.0, 0.0], "nats": [2.0, 2.0], "norms": {"0": 2.0, "1": 4.0}}
    own = {"distinct": [0.3, 0.3], "target": [1.0, 0.5], "nats": [3.0, 1.0], "norms": {"0": 3.0, "1": 2.0}}
    found = injections.summary([{**own, "injections": 9}], [off])
    assert (found["norm"], found["distinct"], found["target"], found["nats"]) == (1.5, 0.5, 0.75, 2.0)

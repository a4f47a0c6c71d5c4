"""Planning beside a text: plans land at their token or nowhere, and whatever fails costs plans alone."""

import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.backbone.config import BackboneConfig
from gssr.search.decoding.lookahead import Lookahead, Request, Search
from gssr.search.decoding.planned import write_planned
from gssr.search.decoding.planners import Job, SeededPlanner, WorkerPlanner
from gssr.search.decoding.plans import Plan, PlanBuffer, digest
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import named, of_texts
from gssr.states.directions import random_like, recurrent_states
from gssr.states.rules import Offset, Schedule
from tests.search.conftest import PROMPT

DECODING = Decoding(24, temperature=3.0)
OPTIONS = Lookahead(ahead=4, candidates=5, block=4, simulations=1)


def _rows(backbone: FrozenBackbone, prompt: Tensor, decoding: Decoding = DECODING, **given: object) -> Rows:
    return Rows(backbone, prompt, 1, decoding, seed=4, **given)


def _plain(backbone: FrozenBackbone, prompt: Tensor) -> Tensor:
    rows = _rows(backbone, prompt)
    rows.write(24)
    return rows.tokens


def vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text)


# Rows that go on from a state


@pytest.mark.parametrize("written", [1, 7, 23])
@pytest.mark.parametrize("steered", [False, True])
def test_rows_go_on_from_a_state_with_the_same_bits(
    lively: FrozenBackbone, prompt: Tensor, written: int, steered: bool
) -> None:
    states = recurrent_states(lively, [PROMPT])
    direction = random_like({layer: x[0] for layer, x in states.items()}, 0)
    rules = [Offset(direction, strength=300.0, schedule=Schedule(stop=12))] if steered else []
    whole = _rows(lively, prompt, rules=rules)
    whole.write(written)
    state, generator = whole.snapshot(), whole.generator.get_state()
    whole.write(24)
    later = Rows(lively, state, 1, DECODING, rules, written=written)
    later.generator.set_state(generator)
    later.write(24)
    assert torch.equal(later.tokens, whole.tokens) and later.texts() == whole.texts()
    assert torch.equal(later.prompts, prompt)


@pytest.mark.parametrize("before", [0, 5])
def test_tokens_that_are_put_are_read_as_tokens_that_are_drawn(
    lively: FrozenBackbone, prompt: Tensor, before: int
) -> None:
    drawn, put = _rows(lively, prompt), _rows(lively, prompt)
    drawn.write(16)
    put.write(before)
    calls = put.calls
    put.put(drawn.tokens[0, before:16].tolist())
    assert put.calls == calls + 1 and torch.equal(put.tokens, drawn.tokens)
    torch.testing.assert_close(put.log_likelihood, drawn.log_likelihood)
    put.generator.set_state(drawn.generator.get_state())
    drawn.write(8)
    put.write(8)
    assert torch.equal(put.tokens, drawn.tokens)
    put.put([5])
    assert put.length == 24  # no more than the decoding says


def test_a_state_that_rows_cannot_go_on_from_is_refused(lively: FrozenBackbone, tiny: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="no token is written yet"):
        _rows(lively, torch.tensor([[3, 5]])).snapshot()
    rows = _rows(lively, torch.tensor([[3, 5]]))
    rows.write(2)
    with pytest.raises(ValueError, match="4 of 4 tokens cannot be new"):
        Rows(lively, rows.snapshot(), 1, DECODING, written=4)
    with pytest.raises(ValueError, match="this state comes from the backbone"):
        Rows(tiny, rows.snapshot(), 1, DECODING, written=2)


# The buffer


def _schedule(draw: random.Random) -> None:
    """One random schedule against the definition, plan by plan."""
    text = [draw.randrange(3) for _ in range(draw.randrange(1, 20))]
    buffer, known = PlanBuffer(), {}
    expected = dict.fromkeys(("applied", "late", "discarded", "replaced", "left"), 0)
    received = 0
    for position in range(len(text)):
        for _ in range(draw.randrange(3)):
            snapshot = draw.randrange(position + 1)
            begins = draw.randrange(snapshot, len(text) + 3)
            foreseen = [*text[snapshot:begins], *[0] * (begins - max(snapshot, len(text)))][: begins - snapshot]
            if foreseen and draw.random() < 0.4:
                foreseen[draw.randrange(len(foreseen))] += 1
            plan = Plan(snapshot, begins, digest(foreseen), (received,))
            received += 1
            buffer.put(plan, position)
            if begins < position:
                expected["late"] += 1
            else:
                expected["replaced"] += begins in known
                known[begins] = (plan, foreseen == text[snapshot:begins])
        taken = buffer.take(text[:position])
        plan, holds = known.pop(position, (None, False))
        assert taken is (plan if holds else None)
        if plan is not None:
            expected["applied" if holds else "discarded"] += 1
        assert buffer.is_waiting == bool(known)
    expected["left"] = len(known)
    counts = buffer.close().as_dict()
    assert {name: counts[name] for name in expected} == expected
    assert counts["received"] == received == sum(expected.values())


def test_plans_land_at_their_token_or_nowhere_in_1000_schedules() -> None:
    for seed in range(1000):
        _schedule(random.Random(seed))


def test_a_plan_of_nothing_is_refused() -> None:
    for wrong in ({"position": 2}, {"tokens": ()}, {"snapshot": -1}):
        with pytest.raises(ValueError, match="expected 0 <= snapshot <= position"):
            Plan(**{"snapshot": 3, "position": 5, "between": "", "tokens": (1,), **wrong})


# The search


def _request(rows: Rows, coming: tuple[int, ...] = ()) -> Request:
    return Request(rows.snapshot(), rows.length, rows.generator.get_state(), coming)


def test_a_search_foresees_the_text_and_takes_the_best_of_the_drawn(lively: FrozenBackbone, prompt: Tensor) -> None:
    rows = _rows(lively, prompt)
    rows.write(3)
    seen = []

    def value(found: Rows) -> Tensor:
        seen.append(found.texts())
        return torch.tensor([vowels(text) for text in found.texts()])

    plan = Search(lively, Lookahead(5, 6, 4, simulations=1), DECODING, value, ()).plan(_request(rows))
    plain = _plain(lively, prompt)[0].tolist()
    assert plan is not None and (plan.snapshot, plan.position) == (3, 8) and plan.between == digest(plain[3:8])
    assert len(seen) == 1 and plan.value == max(map(vowels, seen[0]))
    assert vowels(lively.tokenizer.decode([*plain[:8], *plan.tokens])) == plan.value
    again = Search(lively, Lookahead(5, 6, 4, simulations=1), DECODING, value, ()).plan(_request(rows))
    assert again == plan


def test_what_comes_of_an_earlier_plan_is_foreseen(lively: FrozenBackbone, prompt: Tensor) -> None:
    rows = _rows(lively, prompt)
    rows.write(3)
    plan = Search(lively, Lookahead(4, 2, 2), DECODING, of_texts(vowels), ()).plan(_request(rows, (7, 8, 9)))
    rows.put([7, 8, 9])
    rows.write(1)
    assert plan is not None and plan.between == digest(rows.tokens[0, 3:].tolist())


def test_a_deeper_search_gives_up_a_gain_for_a_larger_one(lively: FrozenBackbone, prompt: Tensor) -> None:
    """Token 5 is worth more at once, token 9 with what can follow it."""
    allowed = (5, 9)
    decoding = Decoding(8, 100.0, suppressed=tuple(i for i in range(lively.table.num_embeddings) if i not in allowed))

    def value(rows: Rows) -> Tensor:
        def worth(tokens: list[int]) -> float:
            if tokens[0] == 5:
                return 0.6
            return 0.4 if len(tokens) == 1 else 1.0

        return torch.tensor([worth(row) for row in rows.tokens[:, 2:].tolist()], dtype=torch.float64)

    found = {}
    for depth, simulations in ((1, 8), (3, 24)):
        rows = Rows(lively, prompt, 1, decoding, seed=1)
        rows.write(1)
        options = Lookahead(1, 16, 1, simulations, depth)
        plan = Search(lively, options, decoding, value, ()).plan(_request(rows))
        assert plan is not None
        found[depth] = plan.tokens
    assert found == {1: (5,), 3: (9,)}


def test_no_plan_is_made_behind_the_end_or_where_all_is_forbidden(lively: FrozenBackbone, prompt: Tensor) -> None:
    rows = _rows(lively, prompt)
    rows.write(3)
    assert Search(lively, Lookahead(21), DECODING, of_texts(vowels), ()).plan(_request(rows)) is None
    forbidding = Search(lively, Lookahead(2), DECODING, of_texts(lambda text: float("-inf")), ())
    assert forbidding.plan(_request(rows)) is None


# Beside a text


def test_plans_in_time_are_written_and_the_same_seed_gives_the_same_text(
    lively: FrozenBackbone, prompt: Tensor
) -> None:
    texts = []
    for _ in range(2):
        rows = _rows(lively, prompt)
        search = Search(lively, OPTIONS, DECODING, of_texts(vowels), ())
        found = write_planned(rows, SeededPlanner(search, lag=2))
        texts.append(rows.texts()[0])
        assert found.counts.applied >= 3 and found.counts.late == found.counts.discarded == 0
        assert 3 * 4 <= found.tokens <= rows.length
    assert texts[0] == texts[1]
    assert vowels(texts[0]) > vowels(lively.tokenizer.batch_decode(_plain(lively, prompt))[0])


class Wrong(SeededPlanner):
    """Foresees other tokens than those that come."""

    def plans(self, position: int) -> list[Plan]:
        return [Plan(p.snapshot, p.position, digest([-1]), p.tokens, p.value) for p in super().plans(position)]


class Hung:
    """Takes a snapshot and never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def is_idle(self) -> bool:
        return not self.asked

    def ask(self, request: Request) -> None:
        self.asked += 1

    def plans(self, position: int) -> list[Plan]:
        return []


@pytest.mark.parametrize("kind", ["off", "late", "discarded", "hung"])
def test_without_a_plan_that_holds_the_text_is_plain(lively: FrozenBackbone, prompt: Tensor, kind: str) -> None:
    search = Search(lively, Lookahead(3, 2, 2, 1), DECODING, of_texts(vowels), ())
    planner = {
        "off": None,
        "late": SeededPlanner(search, 4),
        "discarded": Wrong(search, 3),
        "hung": Hung(),
    }[kind]
    rows = _rows(lively, prompt)
    found = write_planned(rows, planner)
    assert torch.equal(rows.tokens, _plain(lively, prompt)) and not found.tokens and not found.counts.applied
    assert found.counts.late >= 3 if kind == "late" else found.counts.late == 0
    assert found.counts.discarded >= 3 if kind == "discarded" else found.counts.discarded == 0
    assert found.counts.asked == (0 if kind == "off" else 1 if kind == "hung" else found.counts.asked)


def test_a_planner_goes_beside_one_text(lively: FrozenBackbone, prompt: Tensor) -> None:
    with pytest.raises(ValueError, match="these are 2"):
        write_planned(Rows(lively, prompt, 2, DECODING), None)


# A process


@pytest.fixture(scope="module")
def worker(lively_folder: Path) -> Iterator[WorkerPlanner]:
    value = partial(named, "tests.search.test_planning_ahead:vowels")
    with WorkerPlanner(Job(BackboneConfig(str(lively_folder)), OPTIONS, DECODING, value)) as planner:
        assert planner.wait(120), planner.failure
        yield planner


def test_a_worker_plans_as_the_seeded_planner_and_costs_nothing_when_hung_or_killed(
    lively: FrozenBackbone, prompt: Tensor, worker: WorkerPlanner
) -> None:
    rows, seeded = _rows(lively, prompt), _rows(lively, prompt)
    # The pause ends when the worker has answered: it lags one token.
    found = write_planned(rows, worker, 1e9, lambda _: worker.is_idle() or wait([worker._connection], 60))
    search = Search(lively, OPTIONS, DECODING, of_texts(vowels), ())
    expected = write_planned(seeded, SeededPlanner(search, 1))
    assert found.counts.applied >= 3
    assert torch.equal(rows.tokens, seeded.tokens) and found.counts.applied == expected.counts.applied

    if hasattr(os, "getpriority"):
        assert os.getpriority(os.PRIO_PROCESS, worker.process.pid) == 19  # the text gets the core that both want
    plain = _plain(lively, prompt)
    os.kill(worker.process.pid, signal.SIGSTOP)
    rows = _rows(lively, prompt)
    found = write_planned(rows, worker)
    assert torch.equal(rows.tokens, plain) and found.counts.applied == 0 and found.counts.asked <= 1
    assert not worker.failure

    worker.process.kill()
    worker.process.join(60)
    rows = _rows(lively, prompt)
    found = write_planned(rows, worker)
    assert torch.equal(rows.tokens, plain) and found.counts.received == 0
    assert worker.failure == "the worker was ended" and not worker.is_idle()


def test_a_worker_with_a_wrong_scorer_says_so(lively_folder: Path) -> None:
    job = Job(BackboneConfig(str(lively_folder)), Lookahead(), DECODING, partial(named, "tests.nothing:at_all"))
    with WorkerPlanner(job) as planner:
        assert not planner.wait(120)
        assert "the scorer's module 'tests.nothing' cannot be imported" in planner.failure

"""GoalNetwork as a user meets it: losses, rollouts, checkpoints, on a tiny frozen model."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ablations.goals import ShuffledGoals
from benchmarks.ablations.readings import ConstantReading, NoReading
from benchmarks.ablations.steering import Constant, MeanAbsGate, PerDimensionGate
from gssr.network import GoalNetwork
from gssr.network.posterior import MlpPosterior
from gssr.network.rssm import Noise
from gssr.network.schedules import Arrival
from gssr.network.steering import LearnedSteeredPrior
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from tests.conftest import SENTENCES
from tests.networks import make_network

C, H = 4, 3
GOAL = "Weaken to 35 knots in 48 hours"


def record(seed: int, length: int = C + H) -> Record:
    g = np.random.default_rng(seed)
    value = g.normal(50, 10, (length, 2)).astype(np.float32)
    value[1, 0] = np.nan
    text = [SENTENCES[i % 4] if i % 3 else None for i in range(length)]
    bounds = np.array([35, np.nan], np.float32)
    return Record(f"s{seed}", np.arange(length) * 6.0, value, text, GOAL, bounds, bounds, C - 1)


@pytest.fixture
def batch() -> Batch:
    return collate([record(i) for i in range(3)])


@pytest.fixture
def network(tiny_folder: Path) -> GoalNetwork:
    return made(tiny_folder)


def made(folder: Path, **options: Any) -> GoalNetwork:
    network = make_network(folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        names=["a", "b"], units=["u", "v"], resolution=[1.0, 1.0], **options,
    )  # fmt: skip
    network.world.scaler.mean.fill_(50.0)
    network.world.scaler.std.fill_(10.0)
    return network


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_component_with_an_active_loss_gets_a_finite_gradient(network: GoalNetwork, batch: Batch) -> None:
    network.objective.free_nats = 0.0
    terms = network.objective(batch, generator(), training=False).terms
    assert set(terms) == {"value", "text", "kl", "open", "goal"}
    sum(terms.values()).backward()
    for name, component in network.components().items():
        total = sum(p.grad.abs().sum() for p in component.parameters() if p.grad is not None)
        assert torch.isfinite(total) and total > 0, name
    assert network.world.steering.schedule.arrival.grad.abs() > 0
    assert not any(p.requires_grad for p in network.backbone.model.parameters())


def test_a_learned_pull_learns_from_the_losses_that_goals_act_on(tiny_folder: Path, batch: Batch) -> None:
    network = made(tiny_folder, prior=LearnedSteeredPrior, schedule=partial(Arrival, learned_exponent=True))
    network.objective.free_nats = 0.0
    along, steepness = network.world.steering.along, network.world.steering.schedule.steepness
    # A rollout of the last step alone says nothing of p.
    for name, learns in (("kl", [along, steepness]), ("open", [along])):
        network.zero_grad()
        network.objective(batch, generator(), training=False).terms[name].backward()
        for learned in learns:
            assert torch.isfinite(learned.grad).all() and learned.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["value", "text", "kl", "open", "goal"])
def test_each_loss_reaches_exactly_the_components_it_claims(network: GoalNetwork, batch: Batch, name: str) -> None:
    network.objective.free_nats = 0.0
    terms = network.objective(batch, generator(), training=False).terms
    terms[name].backward()
    for component, module in network.components().items():
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        assert reached == (name in network.active_losses()[component]), (name, component)


def test_a_batch_without_goals_or_texts_still_has_all_losses(network: GoalNetwork, batch: Batch) -> None:
    batch.goal = [None] * len(batch)
    batch.text = [[None] * (C + H) for _ in range(len(batch))]
    terms = network.objective(batch, generator(), training=True).terms
    loss = sum(terms.values())
    assert torch.isfinite(loss)
    loss.backward()
    # Every parameter has a gradient, of zero where nothing was to be learned: an unused one would stop DDP.
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_padding_changes_no_loss(network: GoalNetwork) -> None:
    network.objective.weights["text"] = 0.0
    network.world.draw = lambda *shape, generator=None: torch.zeros(shape)
    network.objective.first_imagined = lambda *args: C
    records = [record(0), record(1)]
    short = collate(records)
    padded = collate([*records, record(2, C + H + 4)]).select([0, 1])
    assert padded.value.shape[1] == C + H + 4
    torch.manual_seed(0)
    for name, term in network.objective(short, generator(), training=False).terms.items():
        assert torch.allclose(term, network.objective(padded, generator(), training=False).terms[name], atol=1e-5), name


def test_a_sequence_does_not_depend_on_its_batch(network: GoalNetwork, batch: Batch) -> None:
    network.world.draw = lambda *shape, generator=None: torch.zeros(shape)
    together = network.rollout(batch, batch.goal, samples=1).mean
    alone = network.rollout(batch.select([1]), [batch.goal[1]], samples=1).mean
    assert torch.allclose(together[:, 1:2], alone, atol=1e-4)


def test_the_context_is_filtered_without_the_goal_and_the_horizon_is_never_read(
    network: GoalNetwork, batch: Batch
) -> None:
    before = network.rollout(batch, [None] * 3, samples=4)
    changed = batch.with_goals([SENTENCES[3]] * 3, batch.goal_low, batch.goal_high)
    changed.value = batch.value.clone()
    changed.value[:, C:] += 1000.0
    changed.text = [row[:C] + ["something else"] * H for row in batch.text]
    after = network.rollout(changed, [None] * 3, samples=4)
    assert torch.equal(before.mean, after.mean)
    steered = network.rollout(changed, [GOAL] * 3, samples=4)
    assert not torch.equal(before.mean, steered.mean)


def test_the_open_loss_is_the_crps_of_rollouts_and_of_their_changes_from_the_last_value(
    network: GoalNetwork, batch: Batch
) -> None:
    batch.value_mask = batch.value_mask.clone()
    batch.value_mask[1, C] = False
    filtered = network.world.observe(batch, torch.zeros(3, C + H, 4))
    goal, size = network.world.encode_goals(batch, batch.goal), len(batch)
    found = network.objective.open_loss(batch, filtered, goal, C, generator(3)).mean

    g, first = generator(3), torch.full((size,), C - 1)
    noise = Noise(torch.randn(2 * size, H, 4, generator=g), torch.randn(2 * size, H, 2, generator=g))
    y = network.world.scaler.transform(batch.value, batch.value_mask)
    errors = network.world.forecast_error.last(y - network.world.value_head(filtered.belief.x).mean, batch.value_mask)[
        :, C - 1
    ]
    belief, rolled = filtered.belief.at(first), []
    for sign in (1, -1):
        for s in range(2):
            rows = slice(s * size, (s + 1) * size)
            drawn = Noise(*(sign * part[rows] for part in noise))
            rolled.append(network.world.imagine(belief, errors, C, drawn, network.world.steering.towards(goal)))
    total = count = 0.0
    for b in range(size):
        for h in range(H):
            seen = [bool(batch.value_mask[b, C + h, d]) for d in range(2)]
            count += any(seen)
            for d in (d for d in range(2) if seen[d]):
                total += pairs_crps([r.sample[b, h, d] for r in rolled], y[b, C + h, d])
                if batch.value_mask[b, C + h - 1, d]:
                    before = [r.mean[b, h - 1, d] if h else y[b, C - 1, d] for r in rolled]
                    moves = [r.mean[b, h, d] - old for r, old in zip(rolled, before, strict=True)]
                    total += pairs_crps(moves, y[b, C + h, d] - y[b, C + h - 1, d])
    assert torch.isclose(found, total / count, atol=1e-5)


def pairs_crps(v: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    """Four samples, of which 0 and 2, and 1 and 3, come from opposite noise."""
    apart = [(v[i] - v[j]).abs() for i, j in ((0, 1), (0, 3), (2, 1), (2, 3))]
    return sum((x - y).abs() for x in v) / 4 - sum(apart) / 8


def test_half_of_the_batches_are_imagined_from_where_plans_begin_and_the_others_from_anywhere(
    network: GoalNetwork, batch: Batch
) -> None:
    g = generator()
    found = [network.objective.first_imagined(batch, g) for _ in range(3000)]
    shares = {first: found.count(first) / len(found) for first in set(found)}
    assert set(shares) == set(range(2, C + H))
    for first, share in shares.items():
        assert abs(share - (0.5 if first == C else 0.0) - 0.5 / (C + H - 2)) < 0.03


@pytest.mark.parametrize("samples", [2, 5])
def test_rollouts_that_are_no_pairs_are_refused(tiny_folder: Path, samples: int) -> None:
    with pytest.raises(ValueError, match=f"open_samples is {samples}"):
        make_network(tiny_folder, open_samples=samples)


def test_strength_zero_is_exactly_no_goal(network: GoalNetwork, batch: Batch) -> None:
    network.forecaster.strength = 0.0
    assert torch.equal(network.rollout(batch, [GOAL] * 3, 4).sample, network.rollout(batch, [None] * 3, 4).sample)


def test_prior_samples_have_not_read_their_own_step(network: GoalNetwork, batch: Batch) -> None:
    before = network.forecaster.prior_samples(batch)
    batch.value = batch.value.clone()
    batch.value[:, 4] += 30.0
    after = network.forecaster.prior_samples(batch)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_a_plan_has_values_with_spread_and_a_text_for_each_step(network: GoalNetwork, batch: Batch) -> None:
    plan = network.plan(batch, [GOAL, None, GOAL], samples=8, max_new_tokens=3)
    assert plan.quantiles.shape == (3, H, 2, 5)
    assert (plan.quantiles.diff(dim=-1) >= 0).all()
    assert [len(texts) for texts in plan.text] == [H, H, H]
    again = network.plan(batch, [GOAL, None, GOAL], samples=8, max_new_tokens=3)
    assert torch.equal(plan.mean, again.mean)


def test_the_state_dict_holds_the_trainable_parts_alone(network: GoalNetwork) -> None:
    names = set(network.state_dict())
    assert not any("backbone" in name for name in names)
    assert {f"world.scaler.{name}" for name in ("mean", "std", "low", "high")} <= names
    held = {id(p) for p in network.parameters()}
    assert not any(id(p) in held for p in network.backbone.model.parameters())


def test_another_backbone_is_refused(network: GoalNetwork) -> None:
    checkpoint: dict = {"state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams)}
    network.on_save_checkpoint(checkpoint)
    network.on_load_checkpoint(checkpoint)
    checkpoint["gssr"]["backbone"]["fingerprint"] = "0" * 16
    with pytest.raises(ValueError, match="fingerprint 0000000000000000"):
        network.on_load_checkpoint(checkpoint)


def test_wrong_numbers_of_goals_and_ragged_contexts_are_refused(network: GoalNetwork, batch: Batch) -> None:
    with pytest.raises(ValueError, match="1 goals for 3 sequences"):
        network.rollout(batch, [GOAL])
    batch.goal_start = torch.tensor([1, 2, 3])
    with pytest.raises(ValueError, match="one context length"):
        network.rollout(batch, [None] * 3)


def test_shuffled_goals_are_those_of_other_sequences_in_training_only(tiny_folder: Path, batch: Batch) -> None:
    network = made(tiny_folder, kind=ShuffledGoals)
    batch = batch.with_goals(["a", "b", "c"], batch.goal_low + torch.arange(3)[:, None], batch.goal_high)
    network._trainer = SimpleNamespace(training=True)
    shuffled = network.on_after_batch_transfer(batch, 0)
    assert shuffled.goal == ["c", "a", "b"]
    assert torch.equal(shuffled.goal_low[:, 0], batch.goal_low[[2, 0, 1], 0])
    assert shuffled.series == batch.series and torch.equal(shuffled.value, batch.value)
    network._trainer = SimpleNamespace(training=False)
    assert network.on_after_batch_transfer(batch, 0) is batch


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_rollouts_at_gain_zero_are_those_without_a_goal_bit_for_bit(
    network: GoalNetwork, batch: Batch, strength: float
) -> None:
    network.calibration.factor[1] = 2.0  # what is fitted under goals
    free = network.rollout(batch, [None] * 3, 4, generator(5))
    steered = network.rollout(batch, batch.goal, 4, generator(5), gain=strength)
    assert torch.equal(free.sample, steered.sample) == (strength == 0)
    with pytest.raises(ValueError, match="multiplied by -1"):
        network.rollout(batch, batch.goal, 4, generator(5), gain=-1)


def test_the_strength_multiplies_the_gain_of_forecasts_and_not_that_of_training(
    network: GoalNetwork, batch: Batch
) -> None:
    loss = network.objective(batch, generator(5), training=False).terms["open"]
    network.forecaster.strength = 1.0
    expected = network.rollout(batch, batch.goal, 4, generator(5), gain=2.0).sample
    network.forecaster.strength = 2.0
    assert torch.equal(network.rollout(batch, batch.goal, 4, generator(5)).sample, expected)
    assert network.objective(batch, generator(5), training=False).terms["open"] == loss


def test_strengths_and_orders_that_mean_nothing_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="strength is -1"):
        make_network(tiny_folder, strength=-1)
    with pytest.raises(ValueError, match="strength is nan"):
        make_network(tiny_folder, strength=float("nan"))
    with pytest.raises(ValueError, match="error_order is 0"):
        make_network(tiny_folder, error_order=0)


def test_text_behind_nothing_costs_what_the_frozen_model_alone_says(network: GoalNetwork) -> None:
    nats, tokens = network.speaker.silent_nats(SENTENCES[:2])
    ids = [[network.backbone.start_id, *i, network.backbone.tokenizer.eos_token_id]
           for i in network.backbone.tokenize(SENTENCES[:2])]  # fmt: skip
    for row, of_text in enumerate(ids):
        found = network.backbone.model(torch.tensor([of_text]), labels=torch.tensor([of_text]))
        assert tokens[row] == len(of_text) - 1
        assert nats[row].item() == pytest.approx(found.loss.item() * (len(of_text) - 1), rel=1e-4)


@pytest.mark.parametrize(
    "option",
    [
        {"posterior": MlpPosterior},
        {"prior": MeanAbsGate},
        {"prior": PerDimensionGate},
        {"schedule": Constant},
        {"text_reading": ConstantReading},
        {"text_reading": NoReading},
    ],
    ids=lambda option: "-".join(getattr(value, "__name__", value) for value in option.values()),
)
def test_every_part_that_has_a_loss_learns_under_each_option(
    tiny_folder: Path, batch: Batch, option: dict[str, Any]
) -> None:
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=16, text_layers=(2,), goal_layer=2, text_steps=6,
        goal_dropout=0.0,
        text_dropout=0.0, min_context=C, names=["a", "b"], units=["u", "v"], resolution=[1.0, 1.0], **option,
    )  # fmt: skip
    network.world.scaler.mean.fill_(50.0)
    network.world.scaler.std.fill_(10.0)
    terms = network.objective(batch, generator(), training=True).terms
    sum(network.objective.weights[name] * term for name, term in terms.items()).backward()
    for name, part in network.components().items():
        learns = any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
        assert learns == bool(network.active_losses()[name]), name
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)

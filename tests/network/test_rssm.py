"""The state-space model against torch.distributions, a step-by-step loop and the claims of docs/mathematics.md."""

from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from benchmarks.ablations.steering import Constant, MeanAbsGate, PerDimensionGate
from gssr.network.forecast_error import Decoder, ForecastError
from gssr.network.gaussian import Gaussian, kl, multiply
from gssr.network.goal_encoder import LatentGoal
from gssr.network.heads import ValueHead
from gssr.network.layers import SCALE
from gssr.network.losses import antithetic_crps, goal_distance, kl_terms, value_nll
from gssr.network.posterior import observed
from gssr.network.rssm import CHANGE_SCALE, RSSM, Belief, Noise
from gssr.network.schedules import Arrival, Decay, GainSchedule
from gssr.network.steering import LearnedSteeredPrior, SteeredPrior, clip_norm

B, T, Y, D, G = 3, 6, 2, 4, 8


def gaussian(*shape: int, seed: int = 0) -> Gaussian:
    g = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(*shape, generator=g), torch.rand(*shape, generator=g) + 0.3)


def rssm_of(reads_changes: bool) -> RSSM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RSSM(Y, D, G, reads_changes=reads_changes)


@pytest.fixture
def rssm() -> RSSM:
    return rssm_of(False)


@pytest.fixture
def decode() -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Decoder(ValueHead(D, G, torch.full((Y,), 0.1)), ForecastError(Y, D, G))


def noise_of(rows: int, steps: int) -> Noise:
    g = torch.Generator().manual_seed(5)
    return Noise(torch.randn(rows, steps, D, generator=g), torch.randn(rows, steps, Y, generator=g))


def inputs(seed: int = 1) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "value": torch.randn(B, T, Y, generator=g),
        "value_mask": torch.rand(B, T, Y, generator=g) > 0.3,
        "text": torch.randn(B, T, D, generator=g),
        "text_mask": torch.rand(B, T, generator=g) > 0.5,
        "noise": torch.randn(B, T, D, generator=g),
    }


def goal(active: bool = True, x: float = 2.0) -> LatentGoal:
    return LatentGoal(
        torch.full((B, D), x), torch.full((B,), active), torch.full((B,), 2), torch.full((B,), 5), torch.full((B,), T)
    )


def steered_by(
    schedule: GainSchedule | None = None, kind: type[SteeredPrior] = SteeredPrior, max_norm: float = 1e9
) -> SteeredPrior:
    return kind(schedule or Arrival(), D, max_norm)


def pull(active: bool = True, strength: float = 1.0) -> Any:
    return steered_by().towards(goal(active), strength)


def moved_mean(steering: SteeredPrior, prior: Gaussian, t: int, to: LatentGoal, strength: float = 1.0) -> torch.Tensor:
    return steering(prior, torch.zeros(len(prior.mean), G), t, to, strength).prior.mean


def test_kl_and_nll_equal_torch_distributions() -> None:
    q, p = gaussian(B, T, D), gaussian(B, T, D, seed=1)
    assert torch.allclose(kl(q, p), kl_divergence(Normal(*q), Normal(*p)), atol=1e-6)
    value = torch.randn(B, T, D)
    assert torch.allclose(q.nll(value), -Normal(*q).log_prob(value), atol=1e-6)


def test_free_nats_stop_the_gradient_below_and_only_below() -> None:
    mask = torch.ones(B, T, dtype=torch.bool)
    for free, expect_gradient in ((1e3, False), (0.0, True)):
        mean = torch.randn(B, T, D).requires_grad_()
        q = Gaussian(mean, torch.ones(B, T, D))
        p = Gaussian(torch.zeros(B, T, D), torch.ones(B, T, D))
        clipped, raw, per_dim = kl_terms(q, p, mask, free)
        clipped.backward()
        assert (mean.grad.abs().sum() > 0) == expect_gradient
        assert torch.allclose(raw, 0.5 * mean.square().sum(-1).mean(), atol=1e-5)
        assert torch.allclose(per_dim.sum(), raw)
        assert clipped >= free


def test_masked_steps_count_in_no_kl_even_if_they_hold_nan() -> None:
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, 3] = False
    q, p = gaussian(B, T, D), gaussian(B, T, D, seed=1)
    broken = Gaussian(q.mean.clone(), q.std)
    broken.mean[0, 3] = float("nan")
    assert torch.equal(kl_terms(q, p, mask, 0.0)[1], kl_terms(broken, p, mask, 0.0)[1])


@pytest.mark.parametrize("reads_changes", [False, True])
def test_observe_equals_a_step_by_step_loop(reads_changes: bool) -> None:
    rssm, x = rssm_of(reads_changes), inputs()
    whole = rssm.observe(**x, pull=pull())
    belief = rssm.initial(B)
    for t in range(T):
        read = [belief.x, belief.value, belief.seen] + ([CHANGE_SCALE * belief.change] if reads_changes else [])
        h = rssm.cell(torch.cat(read, -1), belief.h)
        prior = rssm.step(belief, t).prior
        seen_now = observed(x["value"][:, t], x["value_mask"][:, t], x["text"][:, t], x["text_mask"][:, t])
        posterior = rssm.posterior(h, prior, seen_now)
        rows = []
        for b in range(B):
            anything = bool(x["value_mask"][b, t].any() or x["text_mask"][b, t])
            source = posterior if anything else prior
            rows.append(source.mean[b] + source.std[b] * x["noise"][b, t])
        seen = x["value_mask"][:, t].float()
        value = x["value"][:, t].nan_to_num() * seen
        change = torch.zeros(B, Y)
        for b in range(B):
            for y in range(Y):
                if t and x["value_mask"][b, t, y] and x["value_mask"][b, t - 1, y]:
                    change[b, y] = x["value"][b, t, y] - x["value"][b, t - 1, y]
        belief = Belief(h, torch.stack(rows), value, seen, change)
        assert torch.allclose(whole.belief.h[:, t], belief.h, atol=1e-6)
        assert torch.allclose(whole.belief.x[:, t], belief.x, atol=1e-6)


def test_gain_zero_and_no_goal_are_exactly_the_same(rssm: RSSM) -> None:
    x = inputs()
    plain = rssm.observe(**x)
    weak = rssm.observe(**x, pull=pull(strength=0.0))
    inactive = rssm.observe(**x, pull=pull(active=False))
    for other in (weak, inactive):
        assert torch.equal(plain.belief.x, other.belief.x)
        assert torch.equal(plain.steered.mean, other.steered.mean)


def test_filtering_never_sees_the_goal_even_through_gaps(rssm: RSSM) -> None:
    x = inputs()
    x["value_mask"][:, 2:5] = False
    x["text_mask"][:, 2:5] = False
    plain, with_goal = rssm.observe(**x), rssm.observe(**x, pull=pull())
    assert torch.equal(plain.belief.x, with_goal.belief.x) and torch.equal(plain.belief.h, with_goal.belief.h)
    assert not torch.equal(plain.steered.mean, with_goal.steered.mean)


def test_the_goal_acts_only_between_start_and_step(rssm: RSSM) -> None:
    filtered = rssm.observe(**inputs(), pull=pull())
    moved = (filtered.steered.mean != filtered.prior.mean).any(-1).any(0)
    assert moved.tolist() == [False, False, False, True, True, True]


def test_no_future_step_influences_a_past_one(rssm: RSSM) -> None:
    x = inputs()
    before = rssm.observe(**x, pull=pull()).belief
    for name in ("value", "text", "noise"):
        x[name] = x[name].clone()
        x[name][:, 4:] += 100.0
    after = rssm.observe(**x, pull=pull()).belief
    assert torch.equal(before.x[:, :4], after.x[:, :4])
    assert not torch.equal(before.x[:, 4:], after.x[:, 4:])


def test_what_is_masked_is_not_read(rssm: RSSM) -> None:
    x = inputs()
    other = x | {
        "value": torch.where(x["value_mask"], x["value"], 1e6),
        "text": torch.where(x["text_mask"][..., None], x["text"], -1e6),
    }
    assert torch.equal(rssm.observe(**x).belief.x, rssm.observe(**other).belief.x)


def test_a_step_without_observation_follows_the_prior(rssm: RSSM) -> None:
    x = inputs()
    x["value_mask"][:, 3] = False
    x["text_mask"][:, 3] = False
    filtered = rssm.observe(**x)
    assert torch.equal(filtered.posterior.mean[:, 3], filtered.prior.mean[:, 3])
    assert not filtered.observed[:, 3].any()


def test_imagination_reads_the_values_it_has_drawn(rssm: RSSM, decode: Decoder) -> None:
    """The first step is the same whatever noise its value has; the belief of the second has read that value."""
    belief, error = rssm.initial(B), torch.zeros(B, 1, Y)
    noise = noise_of(B, 2)
    other = Noise(noise.x, noise.value + torch.tensor([1.0, 0.0])[None, :, None])
    one, two = (rssm.imagine(belief, error, 0, part, decode) for part in (noise, other))
    assert torch.equal(one.x[:, 0], two.x[:, 0]) and torch.equal(one.mean[:, 0], two.mean[:, 0])
    assert not torch.equal(one.sample[:, 0], two.sample[:, 0])
    assert not torch.equal(one.x[:, 1], two.x[:, 1])


@pytest.mark.parametrize("reads_changes", [False, True])
def test_imagination_is_filtering_of_what_it_has_drawn(reads_changes: bool, decode: Decoder) -> None:
    """With its x as the posterior's sample and its values as the observed ones, the cell comes to the same h."""
    rssm, x = rssm_of(reads_changes), inputs()
    filtered = rssm.observe(**x)
    belief = filtered.belief.at(torch.full((B,), T - 1))
    imagined = rssm.imagine(belief, torch.zeros(B, 1, Y), T, noise_of(B, 3), decode)
    values = torch.cat([filtered.belief.value, imagined.sample], 1)
    seen = torch.cat([filtered.belief.seen, torch.ones(B, 3, Y)], 1)
    for step in range(3):
        change = (values[:, T + step - 1] - values[:, T + step - 2]) * seen[:, T + step - 1] * seen[:, T + step - 2]
        read = belief._replace(value=values[:, T + step - 1], seen=seen[:, T + step - 1], change=change)
        found = rssm.step(read, T + step)
        belief = belief._replace(h=found.h, x=imagined.x[:, step])
        torch.testing.assert_close(found.prior.sample(noise_of(B, 3).x[:, step]), imagined.x[:, step])


def test_any_callable_pulls_and_filter_and_rollout_take_the_same_step(rssm: RSSM, decode: Decoder) -> None:
    """A pull of a planner's own, which reads h: at gain 1 the error of the forecast ends."""
    from gssr.network.steering import Pulled

    def to_seven(prior: Gaussian, h: torch.Tensor, t: int) -> Pulled:
        return Pulled(Gaussian(torch.full_like(prior.mean, 7.0) + h[:, :1], prior.std), torch.ones(len(h)))

    belief = rssm.initial(B)
    step = rssm.step(belief, 0, to_seven)
    assert torch.equal(step.steered.mean, 7.0 + step.h[:, :1].expand(B, D))
    assert torch.equal(rssm.observe(**inputs(), pull=to_seven).steered.mean[:, 0], step.steered.mean)
    noise = Noise(torch.zeros(B, 1, D), torch.zeros(B, 1, Y))
    imagined = rssm.imagine(belief, torch.full((B, 1, Y), 100.0), 0, noise, decode, to_seven)
    assert torch.equal(imagined.x[:, 0], step.steered.mean)
    torch.testing.assert_close(imagined.mean[:, 0], decode.head(imagined.x[:, 0]).mean)


def test_beliefs_are_selected_and_repeated_by_row(rssm: RSSM) -> None:
    beliefs = rssm.observe(**inputs()).belief.at(torch.tensor([1, 3, 5]))
    rows = torch.tensor([2, 0, 2])
    for part, chosen, copies in zip(beliefs, beliefs.select(rows), beliefs.repeat(2), strict=True):
        assert torch.equal(chosen, part[rows])
        assert torch.equal(copies, torch.cat([part, part]))


def test_decay_gain_is_gamma_times_the_rest_of_the_sequence() -> None:
    assert torch.allclose(Decay(gamma=0.5)(3, goal(), 1.0), torch.full((B,), 0.25))


def test_the_correction_is_a_gated_share_of_the_way_and_clipped() -> None:
    prior = gaussian(B, D)
    moved = moved_mean(steered_by(Decay(0.5), MeanAbsGate), prior, 3, goal())
    gate = torch.sigmoid(prior.mean.abs().mean(-1, keepdim=True))
    assert torch.allclose(moved, prior.mean + 0.25 * gate * (2.0 - prior.mean), atol=1e-6)
    short = moved_mean(steered_by(Decay(), max_norm=0.1), prior, 3, goal()) - prior.mean
    assert torch.allclose(short.norm(dim=-1), torch.full((B,), 0.1), atol=1e-5)
    zero = torch.zeros(2, D).requires_grad_()
    clip_norm(zero, 1.0).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_a_learned_pull_begins_as_the_plain_one() -> None:
    prior = gaussian(B, D)
    for schedule in (Arrival(learned_exponent=True), Decay(), Constant()):
        begun, plain = (steered_by(schedule, kind) for kind in (LearnedSteeredPrior, SteeredPrior))
        for t in range(3, T):
            torch.testing.assert_close(moved_mean(begun, prior, t, goal()), moved_mean(plain, prior, t, goal()))


def test_a_learned_pull_leaves_the_directions_that_goals_do_not_describe() -> None:
    """M the projection on the first dimension: the others stay, to the last bit of the equation by hand."""
    prior, steering = gaussian(B, D), steered_by(Constant(0.5), LearnedSteeredPrior)
    kept = torch.zeros(D, D)
    kept[0, 0] = 1.0
    with torch.no_grad():
        steering.along.copy_((kept - torch.eye(D)) / SCALE)
    moved = moved_mean(steering, prior, 4, goal()) - prior.mean
    torch.testing.assert_close(moved[:, 0], 0.5 * (2.0 - prior.mean[:, 0]))
    torch.testing.assert_close(moved[:, 1:], torch.zeros(B, D - 1), atol=1e-6, rtol=0)
    # Rows of M are what moves, columns what it is moved by.
    with torch.no_grad():
        steering.along.zero_()
        steering.along[1, 0] = 2.0 / SCALE
    moved = moved_mean(steering, prior, 4, goal()) - prior.mean
    away = 2.0 - prior.mean
    torch.testing.assert_close(moved[:, 1], 0.5 * (away[:, 1] + 2.0 * away[:, 0]))
    assert torch.equal(moved_mean(steering, prior, 4, goal(), strength=0.0), prior.mean)


def test_a_bridge_goes_an_equal_share_of_what_is_left_with_every_step() -> None:
    """Exponent 1 and gain 1 at arrival: the mean of a Brownian bridge is a straight line to the goal."""
    schedule = Arrival(learned_exponent=True)
    steering = steered_by(schedule, LearnedSteeredPrior)
    with torch.no_grad():
        schedule.steepness.copy_(torch.log(torch.tensor(2.0)) / SCALE)
        schedule.arrival.fill_(30.0)
    held = goal()
    first, last = int(held.start[0]) + 1, int(held.step[0])
    x, path = Gaussian(torch.zeros(B, D), torch.ones(B, D)), []
    for t in range(first, last + 1):
        x = Gaussian(moved_mean(steering, x, t, held), x.std)
        path.append(x.mean[0, 0].item())
    steps = last - first + 1
    # The last step goes all that is left, the first of n a share of 1 / n.
    assert path == pytest.approx([2.0 * (k + 1) / steps for k in range(steps)], abs=1e-5)


def test_masked_values_cost_nothing_and_goals_cost_the_distance_outside() -> None:
    p = gaussian(B, T, Y)
    value = torch.randn(B, T, Y)
    assert torch.equal(value_nll(p, value, torch.zeros(B, T, Y, dtype=torch.bool)), torch.zeros(B, T))
    low, high = torch.tensor([1.0, float("nan")]), torch.tensor([2.0, float("nan")])
    values = torch.tensor([[0.0, 9.0], [1.5, 9.0], [4.0, 9.0]])
    assert goal_distance(values, low, high).tolist() == [1.0, 0.0, 4.0]


def test_the_constant_gain_is_gamma_times_the_strength_at_every_step() -> None:
    schedule = Constant(gamma=0.3)
    assert all(torch.allclose(schedule(t, goal(), 1.0), torch.full((B,), 0.3)) for t in range(T))
    assert torch.allclose(schedule(4, goal(), 0.5), torch.full((B,), 0.15))


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (SteeredPrior, [0.5, 0.5, 0.5, 0.5]),
        (MeanAbsGate, [0.5 * torch.sigmoid(torch.tensor(1.0)).item()] * 4),
        (PerDimensionGate, (0.5 * torch.sigmoid(torch.tensor([0.0, 2.0, 1.0, 1.0]))).tolist()),
    ],
)
def test_gates_multiply_the_pull(gate: type[SteeredPrior], expected: list[float]) -> None:
    """The mean of |mu| is 1 and the goal lies 1 beyond mu in every dimension: the correction is gain times gate."""
    mean = torch.tensor([[0.0, 2.0, -1.0, 1.0]]).expand(B, D)
    prior, to = Gaussian(mean, torch.ones(B, D)), goal()._replace(x=mean + 1)
    moved = moved_mean(steered_by(Constant(0.5), gate), prior, 4, to)
    torch.testing.assert_close(moved - mean, torch.tensor([expected]).expand(B, D))


def test_the_product_of_two_gaussians_is_their_normalised_product_on_a_grid() -> None:
    a, b = Gaussian(torch.tensor([0.3]), torch.tensor([0.7])), Gaussian(torch.tensor([-1.1]), torch.tensor([1.9]))
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(Normal(0.3, 0.7).log_prob(grid) + Normal(-1.1, 1.9).log_prob(grid))
    density /= torch.trapezoid(density, grid)
    mean = torch.trapezoid(density * grid, grid)
    std = torch.trapezoid(density * (grid - mean) ** 2, grid).sqrt()
    product = multiply(a, b)
    assert product.mean.item() == pytest.approx(mean.item(), abs=1e-5)
    assert product.std.item() == pytest.approx(std.item(), abs=1e-5)


def test_the_product_posterior_is_prior_times_what_the_observation_alone_says() -> None:
    rssm, x = rssm_of(False), inputs()
    h, other = torch.randn(2, B, G, generator=torch.Generator().manual_seed(3)).unbind()
    seen = observed(x["value"][:, 0], x["value_mask"][:, 0], x["text"][:, 0], x["text_mask"][:, 0])
    priors = [gaussian(B, D, seed=seed) for seed in (3, 4)]
    found = [(prior, rssm.posterior(at, prior, seen)) for at, prior in zip((h, other), priors, strict=True)]
    # What is left when the prior is taken out again is the same whatever h is.
    precision = [q.std**-2 - p.std**-2 for p, q in found]
    weighted = [q.mean * q.std**-2 - p.mean * p.std**-2 for p, q in found]
    torch.testing.assert_close(precision[0], precision[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(weighted[0], weighted[1], rtol=1e-3, atol=1e-3)
    assert (found[0][1].std < found[0][0].std).all()
    # No goal enters the belief by way of it.
    plain, steered = rssm.observe(**x), rssm.observe(**x, pull=pull())
    assert torch.equal(plain.belief.x, steered.belief.x) and not torch.equal(plain.steered.mean, steered.steered.mean)


def test_antithetic_crps_equals_the_mean_over_all_pairs_that_are_independent() -> None:
    g = torch.Generator().manual_seed(0)
    sample, value = torch.randn(6, B, T, Y, generator=g), torch.randn(B, T, Y, generator=g)
    mask = torch.rand(B, T, Y, generator=g) > 0.3
    pairs = [(sample[i] - sample[j]).abs() for i in range(6) for j in range(6) if i % 3 != j % 3]
    expected = torch.where(mask, (sample - value).abs().mean(0) - sum(pairs) / len(pairs) / 2, 0.0).sum(-1)
    assert torch.allclose(antithetic_crps(sample, value, mask), expected, atol=1e-5)


def test_antithetic_crps_is_unbiased() -> None:
    """Of a standard normal forecast and the value 0.5: Gneiting and Raftery 2007, equation 5."""
    noise = torch.randn(2, 400_000, 1, 1, generator=torch.Generator().manual_seed(0))
    value = torch.full((400_000, 1, 1), 0.5)
    found = antithetic_crps(torch.cat([noise, -noise]), value, torch.ones_like(value, dtype=torch.bool)).mean()
    normal = torch.distributions.Normal(0.0, 1.0)
    y = torch.tensor(0.5)
    expected = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - torch.pi**-0.5
    assert torch.isclose(found, expected, atol=3e-3)

"""The cluster bootstrap against analytic standard errors and a loop that draws."""

import math

import numpy as np
import pytest

from gssr.evaluation.bootstrap import cluster_difference, cluster_mean, cluster_ratio

K, M = 200, 6  # clusters, windows in each


def clustered(within: float, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    values = np.repeat(generator.normal(size=K), M) + within * generator.normal(size=K * M)
    return values, [f"storm {i // M}" for i in range(K * M)]


def test_error_is_that_of_the_cluster_means():
    values, clusters = clustered(within=0.5)
    estimate = cluster_mean(values, clusters, draws=4000)
    means = values.reshape(K, M).mean(1)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.error == pytest.approx(means.std() / math.sqrt(K), rel=0.05)
    assert estimate.error > 2 * values.std() / math.sqrt(K * M) * 0.9  # windows are not independent
    assert estimate.low == pytest.approx(estimate.value - 1.96 * estimate.error, abs=0.02)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * estimate.error, abs=0.02)
    assert (estimate.windows, estimate.series) == (K * M, K)


def test_error_of_independent_windows_is_the_textbook_one():
    values = np.random.default_rng(3).normal(size=1000)
    estimate = cluster_mean(values, [str(i) for i in range(1000)], draws=4000)
    assert estimate.error == pytest.approx(values.std() / math.sqrt(1000), rel=0.05)


def test_unequal_clusters_agree_with_a_loop_that_draws():
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 9, size=30)
    clusters = np.repeat([f"s{i}" for i in range(30)], sizes)
    values = generator.normal(size=len(clusters)) + np.repeat(generator.normal(size=30), sizes)
    groups = [values[clusters == name] for name in dict.fromkeys(clusters)]
    drawn = [np.concatenate([groups[i] for i in generator.integers(30, size=30)]).mean() for _ in range(4000)]
    estimate = cluster_mean(values, clusters, draws=4000)
    assert estimate.error == pytest.approx(np.std(drawn), rel=0.06)


def test_a_paired_difference_drops_what_both_share():
    shared, clusters = clustered(within=0.5)
    better = shared - 0.1 + 0.01 * np.random.default_rng(5).normal(size=len(shared))
    estimate = cluster_difference(shared, better, clusters)
    assert estimate.value == pytest.approx(0.1, abs=0.002)
    assert estimate.error < 0.001 < cluster_mean(shared, clusters).error


def test_a_ratio_is_of_sums_and_draws_both_parts_together():
    generator = np.random.default_rng(2)
    below = generator.uniform(1, 3, size=300)
    clusters = [f"s{i // 3}" for i in range(300)]
    exact = cluster_ratio(2 * below, below, clusters)
    assert exact.value == pytest.approx(2) and exact.error < 1e-12
    assert cluster_ratio(below**2, below, clusters).value == pytest.approx((below**2).sum() / below.sum())


def test_unscored_windows_count_nowhere():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    estimate = cluster_mean(values, ["a", "a", "b", "c"])
    assert (estimate.value, estimate.windows, estimate.series) == (2.0, 2, 2)


def test_seeds_decide_alone():
    values, clusters = clustered(within=1.0)
    assert cluster_mean(values, clusters, seed=1) == cluster_mean(values, clusters, seed=1)
    assert cluster_mean(values, clusters, seed=1) != cluster_mean(values, clusters, seed=2)


def test_one_series_has_no_error_and_none_has_no_value():
    one = cluster_mean(np.array([1.0, 2.0]), ["a", "a"])
    assert one.value == 1.5 and math.isnan(one.error)
    none = cluster_mean(np.array([np.nan]), ["a"])
    assert math.isnan(none.value) and none.windows == 0
    assert none.to_dict()["value"] is None


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="3 windows"):
        cluster_mean(np.zeros(2), ["a", "b", "c"])
    with pytest.raises(ValueError, match="2 draws"):
        cluster_mean(np.zeros(2), ["a", "b"], draws=1)

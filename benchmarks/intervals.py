"""How often nominal 95 % intervals over few clusters miss the truth, by rule: a simulation.

    python -m benchmarks.intervals                  # two minutes; a table in Markdown

The rules: percentiles of a bootstrap that draws clusters; Student's t with the jackknife, with one degree of freedom
less than clusters and with those of Bell and McCaffrey, which `gssr.evaluation.intervals` uses; and the restricted wild
cluster bootstrap of t with the weights of Webb (2014). The worlds: means of clusters that are normal or skewed,
clusters of one size or not, and neighbours that share part of their errors, as stretches of one series do.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.quality.report import table
from gssr.evaluation.intervals import FEWEST, LEVEL, cluster_ratio, t_quantile

WORLDS = ("normal", "skewed", "unequal", "unequal and skewed", "neighbours")
CLUSTERS = (3, 5, 10, 30, 100)
PERCENTILE, JACKKNIFE, OURS, WILD = "percentile bootstrap", "t, K - 1", "t, Bell and McCaffrey", "wild bootstrap"
WEBB = np.sqrt([0.5, 1.0, 1.5])


def sums(world: str, clusters: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sums of scores and numbers of windows of the clusters (K each); the true mean is 0."""
    if world.endswith("skewed"):
        means = generator.exponential(size=clusters) - 1
    elif world == "neighbours":
        noise = generator.normal(size=clusters + 1)
        means = noise[1:] + 0.5 * noise[:-1]
    else:
        means = generator.normal(size=clusters)
    sizes = generator.geometric(1 / 8, clusters) if world.startswith("unequal") else np.full(clusters, 13)
    return means * sizes, sizes.astype(float)


def misses(above: np.ndarray, below: np.ndarray, generator: np.random.Generator, draws: int) -> dict[str, bool]:
    """Whether the interval of each rule leaves out 0, from the sums of one data set."""
    count, total = len(above), below.sum()
    value, names = above.sum() / total, [str(i) for i in range(len(above))]
    times = generator.multinomial(count, np.full(count, 1 / count), size=draws)
    low, high = np.quantile((times @ above) / (times @ below), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    without = (above.sum() - above) / (total - below)
    error = np.sqrt((count - 1) / count * ((without - value) ** 2).sum())
    ours = cluster_ratio(above, below, names)
    # Under the null the residuals are the sums themselves.
    weights = generator.choice(np.concatenate([-WEBB, WEBB]), size=(draws, count))
    means = weights @ above / total
    errors = np.sqrt(((weights * above - means[:, None] * below) ** 2).sum(1))
    own = abs(value) * total / np.sqrt(((above - value * below) ** 2).sum())
    return {
        PERCENTILE: not low <= 0 <= high,
        JACKKNIFE: abs(value) > t_quantile((1 + LEVEL) / 2, count - 1) * error,
        OURS: not ours.low <= 0 <= ours.high if np.isfinite(ours.low) else False,
        WILD: bool(np.mean(np.abs(means) * total / errors >= own) < 1 - LEVEL),
    }


def simulate(world: str, clusters: int, repeats: int, draws: int, seed: int) -> dict[str, float]:
    """The share of data sets whose interval misses, by rule."""
    generator = np.random.default_rng([seed, WORLDS.index(world), clusters])
    found = [misses(*sums(world, clusters, generator), generator, draws) for _ in range(repeats)]
    return {rule: float(np.mean([row[rule] for row in found])) for rule in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="data sets for each row (default: 2000)")
    parser.add_argument("--draws", type=int, default=400, help="draws of a bootstrap (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for world in WORLDS:
        for clusters in CLUSTERS:
            shares = simulate(world, clusters, options.repeats, options.draws, options.seed)
            nothing = {OURS: "none is given"} if clusters < FEWEST else {}
            cells = {rule: f"{100 * share:.1f} %" for rule, share in shares.items()} | nothing
            rows.append({"": f"{world}, {clusters} clusters"} | cells)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()

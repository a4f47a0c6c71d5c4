"""Alternatives to parts of the goal network that lost their comparison; named by configs/ablations.

``import benchmarks.ablations`` before a checkpoint of an ablation is loaded: a checkpoint imports no module itself.
"""

from benchmarks.ablations import goals, readings, steering

__all__ = ["goals", "readings", "steering"]

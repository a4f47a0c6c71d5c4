"""Alternatives to parts of the goal network that lost their comparison; named by configs/ablations."""

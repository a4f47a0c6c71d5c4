"""The goal network: a recurrent state-space model, steered by a goal in words, around a frozen language model."""

from gssr.network.module import GoalNetwork

__all__ = ["GoalNetwork"]

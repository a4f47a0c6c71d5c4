"""The goal network: a recurrent state-space model whose prior a goal in words steers, around a frozen language model."""

from gssr.network.goal_network import GoalNetwork

__all__ = ["GoalNetwork"]

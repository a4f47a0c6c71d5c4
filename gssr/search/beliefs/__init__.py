"""Conditioning on what should hold, with the network's own rollouts: how likely it is, and how it would go."""

from gssr.search.beliefs.rejection import Chance, Conditioned, chance, condition

__all__ = ["Chance", "Conditioned", "chance", "condition"]

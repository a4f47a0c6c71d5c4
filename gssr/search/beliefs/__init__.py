"""Conditioning on what should hold, with the network's own rollouts: how likely it is, and how it would go."""

from gssr.search.beliefs.goals import goal_chances
from gssr.search.beliefs.ladder import Conditioned, Weighed, chance, condition
from gssr.search.beliefs.learning import learn_twist
from gssr.search.beliefs.likeliest import Likeliest, likeliest
from gssr.search.beliefs.over_time import Moment, over_time
from gssr.search.beliefs.recalibration import Corrected, Recalibration, recalibrate
from gssr.search.beliefs.rejection import Chance, Estimate
from gssr.search.beliefs.twist import Twist

__all__ = [
    "Chance",
    "Conditioned",
    "Corrected",
    "Estimate",
    "Likeliest",
    "Moment",
    "Recalibration",
    "Twist",
    "Weighed",
    "chance",
    "condition",
    "goal_chances",
    "learn_twist",
    "likeliest",
    "over_time",
    "recalibrate",
]

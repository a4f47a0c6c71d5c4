"""gssr: goal-conditioned state-space reasoning around a frozen hybrid language model."""

__version__ = "0.1.0"

"""Generated facts, other text and questions, to train models whose states must remember."""

from datamodules.facts.data import FactDocuments
from datamodules.facts.tasks import FactQuestions, ForcedTokens

__all__ = ["FactDocuments", "FactQuestions", "ForcedTokens"]

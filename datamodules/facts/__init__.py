"""Generated facts, other text and questions, to train models whose states must remember."""

from datamodules.facts.data import FactDocuments

__all__ = ["FactDocuments"]

"""What goals in words mean: each becomes a condition that paths satisfy or not, or is told to be none."""

from gssr.understanding.asking import plain, understand, understand_batch
from gssr.understanding.reader import Reader, Setting, Understood

__all__ = ["Reader", "Setting", "Understood", "plain", "understand", "understand_batch"]

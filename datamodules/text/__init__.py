"""Plain text for training language models."""

from datamodules.text.corpus import TextCorpus

__all__ = ["TextCorpus"]

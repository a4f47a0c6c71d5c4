"""LightningDataModules, named in configs as `datamodules.<Class>`."""

from datamodules.storms import Storms
from datamodules.text_corpus import TextCorpus

__all__ = ["Storms", "TextCorpus"]

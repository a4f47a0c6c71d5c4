"""LightningDataModules, named in configs as `datamodules.<Class>`."""

from datamodules.storms import Storms
from datamodules.table_sequences import TableSequences
from datamodules.text_corpus import TextCorpus

__all__ = ["Storms", "TableSequences", "TextCorpus"]

"""LightningDataModules, named in configs as `datamodules.<Class>`."""

from datamodules.facts import FactDocuments, FactQuestions, ForcedTokens
from datamodules.generated import GeneratedSeries
from datamodules.lookups import ThoughtChains, ToolTraces, WrittenChains
from datamodules.sequence_data import SequenceData
from datamodules.sines import Sines
from datamodules.storms import Storms
from datamodules.strikes import Strikes
from datamodules.table_sequences import TableSequences
from datamodules.text import TextCorpus
from datamodules.time_mmd import TimeMMD

__all__ = [
    "FactDocuments",
    "FactQuestions",
    "ForcedTokens",
    "GeneratedSeries",
    "SequenceData",
    "Sines",
    "Storms",
    "Strikes",
    "TableSequences",
    "TextCorpus",
    "ThoughtChains",
    "TimeMMD",
    "ToolTraces",
    "WrittenChains",
]

"""Generated problems that take several lookups or calls of tools, to train models that think before they answer."""

from datamodules.lookups.data import ThoughtChains, WrittenChains
from datamodules.lookups.traces import ToolTraces

__all__ = ["ThoughtChains", "ToolTraces", "WrittenChains"]

"""Generated problems that take several lookups, to train models that think before they answer."""

from datamodules.lookups.data import ThoughtChains, WrittenChains

__all__ = ["ThoughtChains", "WrittenChains"]

"""Atlantic storms: best tracks, advisories in words, goals about the wind, and their report."""

from datamodules.storms.datamodule import Storms

__all__ = ["Storms"]

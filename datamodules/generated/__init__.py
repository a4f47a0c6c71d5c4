"""Generated series of many kinds, for a forecaster of any series."""

from datamodules.generated.data import GeneratedSeries

__all__ = ["GeneratedSeries"]

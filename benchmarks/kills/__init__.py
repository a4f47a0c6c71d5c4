"""Kill training with `kill -9`, go on every time, and compare with a run that was not killed; see `__main__`."""

"""Search over texts that a frozen model writes: several rows of one cache, weighed or selected by a score."""

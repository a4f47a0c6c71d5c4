"""Force tokens and write facts through the states of a frozen model."""

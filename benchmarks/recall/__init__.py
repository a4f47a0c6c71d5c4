"""What a hybrid model remembers, and where; `python -m benchmarks.recall --help`."""

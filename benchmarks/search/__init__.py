"""What search over texts brings, and what it costs; `python -m benchmarks.search --help`."""

"""Effect against damage of everything that can steer the nano backbone; `python -m benchmarks.steering --help`."""

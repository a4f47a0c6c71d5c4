"""Whether goals steer and forecasts are worth having: `python -m benchmarks.quality --data storms`."""

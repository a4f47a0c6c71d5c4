"""How good a goal network is: baselines, scores with errors, reports, charts and written predictions."""

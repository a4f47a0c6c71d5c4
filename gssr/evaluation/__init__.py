"""How good a goal network is: baselines, scores with bootstrap errors, reports, charts and written predictions."""

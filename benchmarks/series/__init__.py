"""Public series of all kinds, each forecast with the default recipe, beside simple methods."""

"""Runs of train.py: folders, checkpoint files, options, signals, and the command line."""

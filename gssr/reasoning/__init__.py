"""Thought steps in the recurrence before an answer."""

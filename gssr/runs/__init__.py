"""Run folders, checkpoint files and configuration: where a run writes, and how it is found again."""

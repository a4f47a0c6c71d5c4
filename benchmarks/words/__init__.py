"""Whether the texts of plans are about their own history and their own numbers."""

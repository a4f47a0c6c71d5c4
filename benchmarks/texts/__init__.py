"""What texts are worth where the answer is known."""

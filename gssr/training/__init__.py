"""Small language models, trained from scratch."""

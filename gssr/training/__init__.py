"""Training of small language models, from scratch or further."""

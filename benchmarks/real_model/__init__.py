"""What a real language model buys over a bundled one and over random weights."""

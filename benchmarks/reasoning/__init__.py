"""How deep thoughts go, and what they cost."""

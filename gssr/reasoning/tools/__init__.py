"""Tools that a model may call: an allow-list of commands, each run in a sandbox, in a loop that ends."""

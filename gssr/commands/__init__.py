"""The `gssr` command, one file a command group."""

"""Any table as sequences: opening files, reading cells, the store on disk, the grid of steps, windows and goals."""

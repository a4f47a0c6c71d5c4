"""How threads of a CPU wait for each other. To be imported before torch, so it imports nothing large."""

import os

# Some microseconds: as fast as longer ones where the cores are free.
SPINS = "1000"


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon while they wait, unless the user has said how they wait.

    By default they spin for milliseconds. Where other programs use the cores, too, a thread that spins keeps the one
    that it waits for from running: small layers on two busy cores then take eighty times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

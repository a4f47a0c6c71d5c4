"""How threads of a CPU wait for each other. To be imported before torch, so it imports nothing large."""

import os


def sleep_at_barriers() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has said how they wait.

    By default they spin. Where other programs use the cores, too, a thread that spins keeps the one that it waits for
    from running: two threads on two busy cores took seventy times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

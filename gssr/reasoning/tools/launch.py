"""Set limits on this process, then become the command: ``python -I -S launch.py LIMITS COMMAND…``.

A file of its own, run by a fresh interpreter: changing limits between fork and exec of a process with threads may hang.
LIMITS are seconds, bytes of memory, bytes of a file, and processes, with commas between.
"""

import os
import resource
import sys

NO_NEW_PRIVILEGES = 38


def main() -> None:
    seconds, memory, file, processes = map(int, sys.argv[1].split(","))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # a set-user-id program stays the user's
    limits = {"CPU": seconds, "AS": memory, "FSIZE": file, "NPROC": processes, "CORE": 0, "NOFILE": 64}
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    os.execv(sys.argv[2], sys.argv[2:])  # nosec B606: no shell is the point


if __name__ == "__main__":
    main()

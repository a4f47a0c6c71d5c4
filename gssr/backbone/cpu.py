"""Process-wide settings without which training on a CPU is several times slower."""

import ctypes
import sys

import torch

# Names and numbers of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def prepare_cpu() -> None:
    """Flush denormal floats, and keep freed memory in the process.

    The scan's decays underflow into denormals, on which a CPU is slow. glibc returns every freed large tensor to the
    system, and half of a training step then goes into page faults. Other mallocs stay as they are.
    """
    torch.set_flush_denormal(True)
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 256 * 2**20)

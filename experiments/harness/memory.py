"""Resident memory of this process, and malloc told to hand freed memory back while it is measured."""

import contextlib
import ctypes
import platform
import resource
from pathlib import Path


def resident_peak():
    """The most memory (MiB) that this process has had resident.

    Linux hands ru_maxrss on from the process that started this one, large as it may have been; VmHWM begins anew.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


@contextlib.contextmanager
def freed_memory_handed_back():
    """Within it, glibc's malloc maps each array by itself and unmaps it when freed; other allocators are left as they are.

    Afterwards it keeps what is freed, as much as its thresholds come to by themselves once large arrays have been freed.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of malloc.h

    def set_threshold(size):
        with contextlib.suppress(AttributeError, OSError, TypeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, size)
            mallopt(M_TRIM_THRESHOLD, 2 * size)

    set_threshold(2**16)
    try:
        yield
    finally:
        set_threshold(2**25)

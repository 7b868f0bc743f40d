"""The threads of the OpenBLAS in SciPy's wheel, which VODE calls for its vector sums."""

from __future__ import annotations

import ctypes
import functools


def with_one_blas_thread(solve):
    """solve() while SciPy's own OpenBLAS keeps to one thread.

    The vectors are bound by memory, and OpenBLAS's threads would wait, spinning, for the cores that the graphs compute on.
    NumPy's OpenBLAS is another one, and keeps its threads.
    """
    get, set_to = _openblas_threads()
    before = get()
    try:
        set_to(1)
        return solve()
    finally:
        set_to(before)


@functools.cache
def _openblas_threads():
    """(get, set) of the number of threads of the OpenBLAS in SciPy's wheel; without effect where there is none to be opened."""
    for path in loaded_libraries("openblas"):
        if "scipy.libs" not in path:
            continue
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix, suffix in (("scipy_", ""), ("scipy_", "64_"), ("", ""), ("", "64_")):
            try:
                return (
                    getattr(library, f"{prefix}openblas_get_num_threads{suffix}"),
                    getattr(library, f"{prefix}openblas_set_num_threads{suffix}"),
                )
            except AttributeError:
                continue
    return lambda: 1, lambda threads: None


def loaded_libraries(name):
    """Paths of the shared libraries of this process that have name in theirs; none where the system does not say."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            # The path is the sixth field, and may hold spaces.
            paths = {fields[5].rstrip("\n") for line in maps if len(fields := line.split(maxsplit=5)) == 6}
    except OSError:
        return []
    return sorted(path for path in paths if name in path.rpartition("/")[2])

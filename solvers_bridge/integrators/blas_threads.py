"""The threads of the OpenBLAS in SciPy's wheel, which VODE calls for its vector sums, and compiled graphs for their products."""

from __future__ import annotations

import ctypes
import functools
import os
import threading

_lock = threading.Lock()
_solves = 0  # in how many solves the OpenBLAS is kept to one thread
_threads_before = 1


def with_one_blas_thread(solve):
    """solve() while SciPy's own OpenBLAS keeps to one thread.

    VODE's vectors are bound by memory, and OpenBLAS's threads would wait, spinning, for the cores that the graphs compute on; in
    products of some hundred rows they wait for each other, on busy cores thirty times as long as the product takes. NumPy's
    OpenBLAS is another one, and keeps its threads. Solves of several threads share the setting: the last to end restores it.
    """
    global _solves, _threads_before
    get, set_to = _openblas_threads()
    with _lock:
        if _solves == 0:
            _threads_before = get()
            set_to(1)
        _solves += 1
    try:
        return solve()
    finally:
        with _lock:
            _solves -= 1
            if _solves == 0:
                set_to(_threads_before)


def _free_in_child():
    """A new lock in a process made by fork: whoever held the old one is a thread that only the parent has."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


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

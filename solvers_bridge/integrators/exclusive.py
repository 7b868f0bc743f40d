"""One VODE or LSODA solve at a time: their COMMON blocks are the process's."""

from __future__ import annotations

import os
import threading

from ..statistics import SolverError
from .blas_threads import with_one_blas_thread
from .scipy_private import LSODA_LOCK, ODEPACK_LOCK, VODE_LOCK

# Re-entrant only so that it can tell whether this thread holds it: nobody takes it twice.
_solving = threading.RLock()


def run_exclusively(scipy_lock, solve):
    """solve() as the only VODE or LSODA solve of the process.

    Other threads wait, also those that call SciPy themselves. A solve inside it by the same thread, through this package or
    through SciPy, raises SolverError. scipy_lock: module and name of the lock with which SciPy guards the same routine.
    """
    if _solving._is_owned():
        raise _nested_error("A VODE or LSODA solve")
    module, name = scipy_lock
    with _solving:
        theirs = getattr(module, name, None)
        if theirs is None:
            return with_one_blas_thread(solve)
        if isinstance(theirs, _Guard):
            theirs = theirs.lock  # An interrupt had come between a solve and its end.
        with theirs:
            try:
                setattr(module, name, _Guard(theirs))
                return with_one_blas_thread(solve)
            finally:
                setattr(module, name, theirs)


def _nested_error(what):
    return SolverError(
        f"{what} was started inside the right-hand side of a VODE or LSODA solve, whose COMMON blocks it "
        "would overwrite; use dopri5, dop853, radau or a fixed-grid method for one of the two"
    )


class _Guard:
    """Stands in for SciPy's lock during a solve, which holds it: lets SciPy's own use of it by the solve through, once at a time.

    A second use by the same thread comes from inside the right-hand side: an error, where the lock would wait for itself.
    """

    def __init__(self, lock):
        self.lock, self.entered = lock, False

    def __enter__(self):
        if not _solving._is_owned():
            self.lock.acquire()
        elif self.entered:
            raise _nested_error("scipy.integrate's VODE or LSODA")
        else:
            self.entered = True

    def __exit__(self, *_):
        if _solving._is_owned():
            self.entered = False
        else:
            self.lock.release()


def _free_in_child():
    """New locks in a process made by fork: whoever held the old ones is a thread that only the parent has."""
    global _solving
    if _solving._is_owned():
        return  # The fork came out of a right-hand side, whose solve goes on in the child.
    _solving = threading.RLock()
    for module, name in (VODE_LOCK, LSODA_LOCK, ODEPACK_LOCK):
        if hasattr(module, name):
            setattr(module, name, threading.Lock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)

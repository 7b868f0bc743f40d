"""Dealing with SciPy's Fortran: one solve at a time, its messages kept off the screen, exceptions carried through it."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import scipy
from scipy.integrate import _dop, _ode, _odepack_py, _vode

from ..statistics import SolverError

_lock = threading.Lock()
_owner = None


def provenance():
    """Which integrator binaries this SciPy holds: {"scipy": version, "vode": kind, "lsoda": kind, "dop": kind}.

    kind is "fortran" (f2py modules, SciPy before 1.17) or "c" (the C translations from 1.17 on).
    """
    binaries = {"vode": getattr(_vode, "dvode", None), "dop": getattr(_dop, "dopri5", None),
                "lsoda": _ode.lsoda.runner}
    kinds = {name: "fortran" if type(binary).__name__ == "fortran" else "c" for name, binary in binaries.items()}
    return {"scipy": scipy.__version__, **kinds}


def warn_of_c_translations():
    """One RuntimeWarning if this SciPy's integrators are not the Fortran ones that this package stands for."""
    found = provenance()
    translated = [name for name in ("vode", "lsoda", "dop") if found[name] != "fortran"]
    if translated:
        warnings.warn(f"SciPy {found['scipy']} has C translations of {', '.join(translated)} instead of the Fortran "
                      "integrators of the paper; results may differ (dop853 takes other steps). "
                      "Install 'scipy>=1.11,<1.17' for the Fortran.", RuntimeWarning, stacklevel=3)


_our_filter = None


def ignore_scipy_warnings():
    """Keep SciPy's warnings of failed solves from the user: SolverError says the same, better.

    They are attributed to this package, which called SciPy, and are ignored by that. Put in front again if other filters came
    since; a catch_warnings around each solve would make the user's own warnings forget that they were shown.
    """
    global _our_filter
    if _our_filter is None or not warnings.filters or warnings.filters[0] is not _our_filter:
        warnings.filterwarnings("ignore", category=Warning, module=r"solvers_bridge\.integrators\.")
        _our_filter = warnings.filters[0]


class _SameThreadGuard:
    """Stands in for SciPy's own lock during a solve: the solving thread gets an error from it, where it would wait for itself."""

    def __init__(self, lock):
        self.lock, self.entered_by = lock, None

    def __enter__(self):
        if self.entered_by == threading.get_ident():
            raise _nested_error("scipy.integrate's VODE or LSODA")
        self.lock.acquire()
        self.entered_by = threading.get_ident()

    def __exit__(self, *_):
        self.entered_by = None
        self.lock.release()


def _nested_error(what):
    return SolverError(f"{what} was started inside the right-hand side of a VODE or LSODA solve, whose COMMON blocks it "
                       "would overwrite; use dopri5, dop853, radau or a fixed-grid method for one of the two")


@contextmanager
def exclusive(scipy_module, scipy_lock):
    """Run the block as the only VODE or LSODA solve of the process.

    Other threads wait. A solve inside the block by the same thread, through this package or through SciPy itself, raises
    SolverError. scipy_lock names the lock with which SciPy guards the same routine, where this SciPy has it.
    """
    global _owner
    me = threading.get_ident()
    if _owner == me:
        raise _nested_error("A VODE or LSODA solve")
    with _lock:
        _owner = me
        theirs = getattr(scipy_module, scipy_lock, None)
        if theirs is not None:
            setattr(scipy_module, scipy_lock, _SameThreadGuard(theirs))
        try:
            yield
        finally:
            if theirs is not None:
                setattr(scipy_module, scipy_lock, theirs)
            _owner = None


VODE_LOCK = (_ode, "VODE_LOCK")
LSODA_LOCK = (_ode, "LSODA_LOCK")
ODEPACK_LOCK = (_odepack_py, "ODE_LOCK")


class _Muffler:
    """File descriptors 1 and 2 turned to a file while Fortran or f2py run, and back while Python runs."""

    def __init__(self):
        self.pid = os.getpid()
        self.file = tempfile.TemporaryFile()
        self.lock = threading.RLock()
        self.flush = _gfortran_flush()

    def turn(self, descriptor):
        """Turn a descriptor to the file; returns the copy of the original that turn_back takes."""
        try:
            original = os.dup(descriptor)
        except OSError:
            # A process without standard streams: to it, and from it, there is nothing to lose.
            original = os.open(os.devnull, os.O_RDWR)
        os.dup2(self.file.fileno(), descriptor)
        return original

    @staticmethod
    def turn_back(descriptor, original):
        """The descriptor as it was before turn."""
        os.dup2(original, descriptor)
        os.close(original)

    def take(self):
        """What was printed since the last call, white space folded."""
        size = os.fstat(self.file.fileno()).st_size
        if not size:
            return ""
        text = os.pread(self.file.fileno(), size, 0).decode(errors="replace")
        os.ftruncate(self.file.fileno(), 0)
        os.lseek(self.file.fileno(), 0, os.SEEK_SET)
        return " ".join(text.split())


_muffler = None


def _the_muffler():
    global _muffler
    if _muffler is None or _muffler.pid != os.getpid():
        _muffler = _Muffler()
    return _muffler


def _gfortran_flush():
    """libgfortran's flush of all units (it buffers what does not go to a terminal), or None where it is not found."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "libgfortran" in line}
        functions = [ctypes.CDLL(path)._gfortran_flush_i4 for path in paths]
    except (OSError, AttributeError):
        return lambda: None
    return lambda: [function(None) for function in functions]


class Callbacks:
    """Python functions for Fortran to call, during one solve.

    Between callbacks, descriptor 1 is muffled if muffle_stdout (VODE and LSODA print there; what other threads' C code prints
    in those moments goes the same way). An exception in a callback is kept and comes out of call unchanged.
    """

    def __init__(self, muffle_stdout):
        self.muffler = _the_muffler()
        self.muffle_stdout = muffle_stdout
        self.stdout = None
        self.stderr = None
        self.exception = None
        self.messages = ""

    def wrap(self, function):
        """function(t, z) as a callback. (f2py reads the number of arguments off the signature.)"""
        muffled = self.muffler.file.fileno()

        def callback(t, z):
            try:
                return function(t, z)
            except BaseException as exception:
                self._leave(exception)
                raise

        def callback_unmuffled(t, z):
            os.dup2(self.stdout, 1)
            try:
                return callback(t, z)
            finally:
                os.dup2(muffled, 1)

        return callback_unmuffled if self.muffle_stdout else callback

    def _leave(self, exception):
        """Before an exception crosses Fortran: f2py prints a message of its own on descriptor 2."""
        self.exception = exception
        if self.stderr is None:
            self.muffler.lock.acquire()
            self.stderr = self.muffler.turn(2)

    def call(self, routine, *args):
        """routine(*args), raising what a callback raised; text that Fortran printed is added to self.messages."""
        ignore_scipy_warnings()
        if self.muffle_stdout:
            self.stdout = self.muffler.turn(1)
        try:
            return routine(*args)
        except BaseException:
            if self.exception is not None:
                raise self.exception
            raise
        finally:
            if self.muffle_stdout:
                self.muffler.flush()
                self.muffler.turn_back(1, self.stdout)
                self.stdout = None
                self.messages += self.muffler.take()
            if self.stderr is not None:
                self.muffler.turn_back(2, self.stderr)
                self.stderr = None
                self.muffler.take()
                self.muffler.lock.release()


def with_messages(reason, messages):
    """reason, and what Fortran printed, if it printed anything."""
    return f"{reason} [Fortran: {messages}]" if messages else reason


def tolerance(value, size):
    """A tolerance as SciPy's f2py wrappers take it: a number, or a vector of one number an unknown."""
    return float(value) if np.ndim(value) == 0 else np.broadcast_to(np.asarray(value, float), (size,)).copy()


def both_tolerances(rtol, atol, size):
    """rtol and atol as two numbers or two vectors: Hairer's codes and VODE want both of one kind."""
    if np.ndim(rtol) == np.ndim(atol) == 0:
        return float(rtol), float(atol)
    return tuple(np.broadcast_to(np.asarray(value, float), (size,)).copy() for value in (rtol, atol))

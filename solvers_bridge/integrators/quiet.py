"""What the Fortran prints is kept off the screen, and what func raises comes through it unchanged."""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
import warnings

from .blas_threads import loaded_libraries

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


class _Sink:
    """A file to which descriptors 1 and 2 are turned for the moments in which Fortran or f2py print.

    Every method may be broken off by an interrupt and called again: the copies of the originals have fixed places, so that none
    is lost between being made and being noted.
    """

    def __init__(self):
        self.pid = os.getpid()
        self.descriptor, path = tempfile.mkstemp()
        os.unlink(path)
        self.originals = {1: os.dup(self.descriptor), 2: os.dup(self.descriptor)}
        self.turned = set()
        self.flush_fortran = _gfortran_flush()

    def turn(self, descriptor):
        """Turn a descriptor to the file."""
        if descriptor in self.turned:
            return
        try:
            os.dup2(descriptor, self.originals[descriptor], inheritable=False)
        except OSError:
            # A process without standard streams: to it, and from it, there is nothing to lose.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self.originals[descriptor], inheritable=False)
            os.close(nowhere)
        self.turned.add(descriptor)
        os.dup2(self.descriptor, descriptor)

    def turn_back(self, descriptor):
        """Turn a descriptor back, and let go of its copy, which could keep a pipe open."""
        if descriptor in self.turned:
            os.dup2(self.originals[descriptor], descriptor)
            self.turned.discard(descriptor)
            os.dup2(self.descriptor, self.originals[descriptor], inheritable=False)

    def take(self):
        """Fortran's text, white space folded. f2py's is dropped; lines of other threads, caught by chance, go on to stdout."""
        size = os.fstat(self.descriptor).st_size
        if not size:
            return ""
        lines = os.pread(self.descriptor, size, 0).splitlines(keepends=True)
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        foreign = b"".join(line for line in lines if not line.startswith(FORTRAN_LINES + F2PY_LINES))
        if foreign:
            os.write(1, foreign)
        return " ".join(b"".join(line for line in lines if line.startswith(FORTRAN_LINES)).decode(errors="replace").split())


FORTRAN_LINES = b" DVODE--", b" DVINDY--", b" lsoda--", b" intdy--", b"      "
F2PY_LINES = b"capi_return is NULL", b"Call-back cb_"

_the_sink = None


def _sink():
    global _the_sink
    if _the_sink is None or _the_sink.pid != os.getpid():
        _the_sink = _Sink()
    return _the_sink


def _gfortran_flush():
    """libgfortran's flush of all units, or None where it is not found."""
    try:
        # PyDLL keeps the GIL, so that no other thread prints meanwhile.
        functions = [ctypes.PyDLL(path)._gfortran_flush_i4 for path in loaded_libraries("libgfortran")]
    except (OSError, AttributeError):
        return None
    return (lambda: [function(None) for function in functions]) if functions else None


def _prints_at_once():
    """Whether Fortran's output goes out as it is written: libgfortran keeps it until flushed only where stdout is a file."""
    try:
        return not stat.S_ISREG(os.fstat(1).st_mode) or any(name.startswith("GFORTRAN_UNBUFFERED") for name in os.environ)
    except OSError:
        return True


# libgfortran decides when it is loaded, which is about now.
_PRINTED_AT_ONCE_WHEN_LOADED = _prints_at_once()


# Called by ctypes, it raises an exception that is set already: an interrupt as a C routine called, which took no notice of it.
_raise_pending = ctypes.pythonapi["PyErr_Occurred"]
_raise_pending.restype = None


class Callbacks:
    """Python functions for Fortran to call, during one solve.

    Fortran's text goes to a sink, and from there into messages; what Python code prints in callbacks does not. An exception in a
    callback comes out of call unchanged, without the line that f2py prints about it.

    goes_on: the routine is a C translation that does not end at an exception, but calls again. It is kept from seeing any: after
    one, function is called no more, and the routine, given what makes it end, returns to call.
    """

    def __init__(self, fortran_prints, goes_on=False):
        self.sink = _sink()
        self.fortran_prints = fortran_prints
        self.goes_on = goes_on
        self.at_once = fortran_prints and (_PRINTED_AT_ONCE_WHEN_LOADED or _prints_at_once() or self.sink.flush_fortran is None)
        self.exception = None
        self.messages = ""

    def wrap(self, function, to_end=None):
        """function(t, z) as a callback. (f2py reads the number of arguments off the signature.)

        to_end: what is returned, after an exception, to a routine that goes on.
        """
        sink = self.sink
        if self.goes_on:
            return self._wrap_for_one_that_goes_on(function, to_end)

        def callback(t, z):
            try:
                return function(t, z)
            except BaseException as exception:
                self.exception = exception
                sink.turn(2)
                raise

        def callback_with_stdout(t, z):
            try:
                os.dup2(sink.originals[1], 1)
                return callback(t, z)
            finally:
                os.dup2(sink.descriptor, 1)

        return callback_with_stdout if self.at_once else callback

    def _wrap_for_one_that_goes_on(self, function, to_end):
        def callback(t, z):
            try:
                _raise_pending()
                if self.exception is None:
                    return function(t, z)
            except BaseException as exception:
                if self.exception is None:
                    self.exception = exception
            return to_end

        return callback

    def call(self, routine, *args):
        """routine(*args), raising what a callback raised."""
        ignore_scipy_warnings()
        try:
            if self.at_once:
                self.sink.turn(1)
            answer = routine(*args)
            if self.exception is not None:
                raise self.exception
            return answer
        except BaseException:
            if self.exception is not None:
                raise self.exception  # noqa: B904  (the exception's own context and cause stay as they were)
            raise
        finally:
            try:
                self._take_messages()
            finally:
                # For an interrupt that broke it off; otherwise there is nothing left to do.
                self._restore_streams()

    def _take_messages(self):
        if self.fortran_prints and self.sink.flush_fortran is not None:
            self.sink.turn(1)
            self.sink.flush_fortran()
        self._restore_streams()
        # A solve inside, or beside, one that prints leaves the sink to that one.
        if self.fortran_prints or 1 not in self.sink.turned:
            self.messages = f"{self.messages} {self.sink.take()}".strip()

    def _restore_streams(self):
        if self.fortran_prints:
            self.sink.turn_back(1)
        if self.exception is not None:
            self.sink.turn_back(2)


def with_messages(reason, messages):
    """reason, and what Fortran printed, if it printed anything."""
    return f"{reason} [Fortran: {messages}]" if messages else reason

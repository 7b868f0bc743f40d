"""Compiled graphs in this process: loaded once, bound to parameters, called by the Fortran or from Python."""

from __future__ import annotations

import ctypes
import functools
import threading

import numpy as np
import tensorflow as tf
from scipy.linalg import cython_blas

from ...integrators.base import MOST_NOT_FINITE
from ...integrators.compiled import Compiled
from . import cache
from .build import NativeError, compile_library, program

CAPSULE_NAMES = ("rhs", "rhs_lsoda", "jacobian", "jacobian_lsoda", "solout")
MOST_IDLE = 4  # buffers that a function keeps for bindings to come
STAGES = {"dopri5": 6, "dop853": 12}  # evaluations of an accepted step, its first stage being the last of the step before


class Control(ctypes.Structure):
    """What the compiled callbacks tell of a solve, and are told (see callbacks.cpp)."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("evaluations", "evaluation_limit", "stop", "not_finite_limit")),
        *((name, ctypes.c_int64) for name in ("not_finite_evaluations", "not_finite", "not_finite_index", "not_finite_state")),
        *((name, ctypes.c_int64) for name in ("ignore_last", "lost_size")),
        *((name, ctypes.c_double) for name in ("lost_limit", "origin", "low", "high")),
        *((name, ctypes.c_double) for name in ("not_finite_t", "not_finite_value", "last_t")),
    ]


class NativeFunction:
    """function(t, z (n,), leaves) -> flat tensor, compiled ahead of time for one set of shapes.

    Parameters
    ----------
    function : of TensorFlow tensors: a scalar, a vector and a list.
    num_sent : n, the size of z; what calls it may have longer states, of which the first n entries are sent.
    leaf_specs : a (shape, dtype) for each leaf.
    dtype : tf.float32 or tf.float64, of t and z inside the graph; outside, t, z and f are float64.

    Raises NativeError where it cannot be compiled. Pickles as its graph, which is compiled again where it is not in the cache.
    """

    def __init__(self, function, num_sent, leaf_specs, dtype):
        dtype = tf.as_dtype(dtype)

        def graph(t, z, *leaves):
            return tf.cast(tf.reshape(function(tf.cast(t, dtype), tf.cast(z, dtype), list(leaves)), [-1]), tf.float64)

        specs = [tf.TensorSpec([], tf.float64), tf.TensorSpec([num_sent], tf.float64)]
        self._set(program(graph, specs + [tf.TensorSpec(*spec) for spec in leaf_specs]))

    def _set(self, program):
        self.program = program
        self.library = _library(program)
        self.num_sent, self.num_out = (self.library.sb_size(i) // np.dtype(float).itemsize for i in (1, -1))
        self.pool = _Pool(self.library)
        self.leaf_types = [(tf.as_dtype(dtype).as_numpy_dtype, shape) for _, dtype, shape in program.feeds[2:]]

    def __getstate__(self):
        return self.program

    def __setstate__(self, program):
        self._set(program)

    def bind(self, leaves):
        """A Binding to parameters: arrays or tensors, of the leaves' shapes. They must not be written to while it is in use."""
        return Binding(self, [_aligned(leaf, *of_type) for leaf, of_type in zip(leaves, self.leaf_types, strict=True)])


class Binding:
    """A compiled function with its parameters. One thread at a time; several bindings of one function may run at once.

    For the Fortran: `with binding: integrator.run(binding.rhs, ...)`, where rhs (VODE, dopri5, dop853), rhs_lsoda, jacobian
    (VODE), jacobian_lsoda and solout are PyCapsules, the same for all bindings of a function. What a signal raises in the
    meantime (Ctrl-C) makes the Fortran give up within milliseconds, and f2py passes it on.
    From Python: binding(t, z) -> float64 array.
    control : counts, the first value that was not finite, and why evaluations were refused (Control), since reset.
    """

    def __init__(self, function, leaves):
        self.library, self.leaves = function.library, leaves
        pointers = (ctypes.c_void_p * max(1, len(leaves)))(*(leaf.ctypes.data for leaf in leaves))
        self._pool = function.pool
        self._buffers = self._pool.take(pointers) or _Buffers(function, pointers)
        self.handle, self.control = self._buffers.handle, self._buffers.control
        self.num_sent = function.num_sent
        self._z, self._f, self._addresses = self._buffers.z, self._buffers.f, self._buffers.addresses
        self._before = []
        self.record(None)
        self.reset()

    def __del__(self):
        buffers = self.__dict__.get("_buffers")
        if buffers is not None:
            self._pool.give(buffers)

    def __getattr__(self, name):
        if name not in CAPSULE_NAMES:
            raise AttributeError(name)
        return self.library.capsules[f"sb_{name}"]

    @property
    def compiled(self):
        """What the integrators take to solve without Python."""
        return Compiled(self)

    def __call__(self, t, z):
        self._z[:] = z[: self.num_sent]
        self.library.sb_evaluate(self.handle, t, *self._addresses)
        return self._f.copy()

    def __enter__(self):
        """Make this the binding that the Fortran calls in this thread."""
        self._before.append(self.library.sb_make_current(self.handle))
        return self

    def __exit__(self, *_):
        self.library.sb_make_current(self._before.pop())

    def reset(self, evaluation_limit=0, stop_at_not_finite=True):
        """Begin to count anew. evaluation_limit: refuse evaluations after so many; 0 for no limit.

        stop_at_not_finite: whether a value that is not finite makes the Fortran give up, or goes on to it (control tells) unless
        it is the first one, or there are very many.
        """
        self.library.sb_reset(self.handle)
        self.control.evaluation_limit = evaluation_limit
        self.control.not_finite_limit = 1 if stop_at_not_finite else MOST_NOT_FINITE

    def set_bands(self, bands):
        """(lower, upper) if the integrator stores the Jacobian in bands, None if it stores all of it."""
        self.library.sb_set_bands(self.handle, *(bands or (-1, -1)))

    def record(self, method):
        """Keep the accepted steps of the next solve by method "dopri5" or "dop853" with solout; None ends it."""
        self.library.sb_record(self.handle, STAGES[method] if method else 0)

    def recorded(self):
        """Steps kept: t (s + 1,), z (s + 1, n) and k (s, stages + 1, n), the derivatives of the stages k1, k2, ... of each step.

        The last of a step's stages is the first of the next one: f at the step's end. Over several output times, each interval
        has a first point of its own, and k a row for every other point.
        """
        return tuple(array.copy() for array in self._recorded_views())

    def take_recorded(self):
        """(*recorded(), recorded_intervals(), owner), not copied: valid while owner lives. The binding records no more."""
        views, begins = self._recorded_views(), self.recorded_intervals()
        return *views, begins, _Recording(self.library, self.library.sb_take_recording(self.handle))

    def _recorded_views(self):
        stages = self.library.sb_num_stages(self.handle)
        if not stages:
            raise ValueError("nothing is recorded: record(method) comes before the solve")
        t, z, k = (ctypes.POINTER(ctypes.c_double)() for _ in range(3))
        points = self.library.sb_recorded(self.handle, ctypes.byref(t), ctypes.byref(z), ctypes.byref(k))
        n, intervals = self._f.size, len(self.recorded_intervals())
        return _view(t, (points,)), _view(z, (points, n)), _view(k, (max(0, points - intervals), stages + 1, n))

    def recorded_intervals(self):
        """Where in t each recorded interval between output times begins."""
        begins = ctypes.POINTER(ctypes.c_int64)()
        count = self.library.sb_intervals(self.handle, ctypes.byref(begins))
        return begins[:count]


class _Buffers:
    """What a Binding computes in: its C side, and the arrays of its evaluations from Python."""

    def __init__(self, function, pointers):
        library = function.library
        self.handle = library.sb_create(pointers)
        if not self.handle:
            raise MemoryError("no memory for the buffers of a compiled graph")
        self.control = Control.from_address(library.sb_control(self.handle))
        self.z, self.f = np.empty(function.num_sent), np.empty(function.num_out)
        self.addresses = ctypes.c_void_p(self.z.ctypes.data), ctypes.c_void_p(self.f.ctypes.data)


class _Pool:
    """_Buffers of bindings that are gone, for the next ones.

    The only one to free them: in a cycle, Python may finalize a binding, its buffers and this in any order.
    """

    def __init__(self, library):
        self.library, self.idle = library, []

    def take(self, pointers):
        """Buffers for parameters at pointers, or None."""
        try:
            buffers = self.idle.pop()
        except IndexError:
            return None
        self.library.sb_set_leaves(buffers.handle, pointers)
        return buffers

    def give(self, buffers):
        """Take back buffers that nobody uses any more."""
        if self.idle is not None and len(self.idle) < MOST_IDLE:
            self.idle.append(buffers)
        else:
            self.library.sb_destroy(buffers.handle)

    def __del__(self):
        idle, self.idle = self.idle, None
        for buffers in idle:
            self.library.sb_destroy(buffers.handle)


class _Recording:
    """Recorded steps that belong to whoever holds this."""

    def __init__(self, library, pointer):
        self.library, self.pointer = library, pointer

    def __del__(self):
        self.library.sb_free_recording(self.pointer)


def _view(pointer, shape):
    return np.ctypeslib.as_array(pointer, shape) if np.prod(shape) else np.empty(shape)


def _aligned(leaf, dtype, shape):
    """leaf as an array of dtype, contiguous and aligned to 64 bytes, as compiled graphs read it; no copy of one that is."""
    array = np.asarray(leaf, dtype, order="C")
    if array.shape != shape:
        raise ValueError(f"a parameter has shape {array.shape}, where the graph was compiled for {shape}")
    if array.ctypes.data % 64 == 0:
        return array
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(dtype).reshape(shape)
    copy[...] = array
    return copy


_loaded: dict[str, _Library] = {}
_loading = threading.Lock()


def _library(program):
    """The library of a Program, compiled if it is in no cache, loaded if it is not in this process."""
    key = program.key()
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(program, key)
        return _loaded[key]


def _load(program, key):
    try:
        path = cache.provide(key, lambda folder: compile_library(program, folder))
        try:
            return _Library(path)
        except OSError:
            # A file damaged since it was written: once more from the beginning.
            path.unlink(missing_ok=True)
            return _Library(cache.provide(key, lambda folder: compile_library(program, folder)))
    except OSError as error:
        raise NativeError(f"a compiled graph cannot be kept in {cache.directory()} and loaded from there: {error}") from error


class _Library:
    """The functions of a compiled graph."""

    def __init__(self, path):
        # PyDLL keeps Python's lock during the short calls; a single evaluation lets other threads run.
        library, unlocked = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
            ("sb_set_runtime", None, [pointer] * 5),
            ("sb_size", ctypes.c_int64, [integer]),
            ("sb_create", pointer, [pointer]),
            ("sb_set_leaves", None, [pointer, pointer]),
            ("sb_destroy", None, [pointer]),
            ("sb_control", pointer, [pointer]),
            ("sb_reset", None, [pointer]),
            ("sb_make_current", pointer, [pointer]),
            ("sb_set_bands", None, [pointer, integer, integer]),
            ("sb_record", None, [pointer, integer]),
            ("sb_num_stages", integer, [pointer]),
            ("sb_recorded", ctypes.c_int64, [pointer] * 4),
            ("sb_take_recording", pointer, [pointer]),
            ("sb_free_recording", None, [pointer]),
            ("sb_intervals", ctypes.c_int64, [pointer] * 2),
            ("sb_solve", integer, [pointer] * 3 + [ctypes.c_int64, pointer, ctypes.c_int64, pointer]),
            ("sb_sweep", ctypes.c_int64, [pointer] * 2),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.sb_evaluate = unlocked.sb_evaluate
        self.sb_evaluate.restype, self.sb_evaluate.argtypes = None, [pointer, ctypes.c_double, pointer, pointer]
        self.evaluate_address = ctypes.cast(library.sb_evaluate, pointer).value
        self.jacobian_addresses = {
            name: ctypes.cast(getattr(library, name), pointer).value for name in ("sb_jacobian", "sb_jacobian_lsoda")
        }
        self.capsules = {name: _capsule(getattr(library, name)) for name in (f"sb_{name}" for name in CAPSULE_NAMES)}
        self.sb_set_runtime(*_runtime())


def _python(name, result, *arguments):
    """A function of Python's C interface, with types of its own: ctypes.pythonapi's are shared with everybody."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def _capsule(function):
    """A PyCapsule of a C function without a name, which f2py takes for a callback."""
    new = _python("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(ctypes.cast(function, ctypes.c_void_p), None, None)


@functools.cache
def _runtime():
    """Addresses of what compiled graphs call: Python's signal check and lock, and the matrix products of SciPy's BLAS."""
    name_of = _python("PyCapsule_GetName", ctypes.c_char_p, ctypes.py_object)
    pointer_in = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    python = [getattr(ctypes.pythonapi, name) for name in ("PyErr_CheckSignals", "PyEval_SaveThread", "PyEval_RestoreThread")]
    blas = [cython_blas.__pyx_capi__[name] for name in ("dgemm", "sgemm")]
    return [
        *(ctypes.cast(function, ctypes.c_void_p).value for function in python),
        *(pointer_in(capsule, name_of(capsule)) for capsule in blas),
    ]

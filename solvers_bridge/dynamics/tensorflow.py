"""TensorFlow dynamics: graphs for f, its adjoint system, its tangent system and its Jacobian."""

from __future__ import annotations

from math import prod

import numpy as np
import tensorflow as tf

from ..integrators.compiled import compiled_of
from ..nested import is_differentiable
from .base import COMPILERS, Dynamics
from .native import NativeError, NativeFunction
from .tensorflow_call import StateGraph

FLOAT_TYPES = ("float32", "float64")
# compiler="auto" compiles what has at most so many rows of the state times numbers in parameters, a bound on the multiplications
# of a network. `bench` measures it over sizes (bench_compilers): on two idle cores native is ahead up to here in both precisions,
# and in float32 no longer from 2.5e7 on, since it has one thread where graphs have all cores.
MOST_WORK = 1e7


class TensorFlowDynamics(Dynamics):
    """func(t, y, params) -> dy/dt in TensorFlow operations, as the dynamics of odeint.

    Parameters
    ----------
    func : t is a scalar tensor, y nested and shaped as y0, params the nesting given to odeint with tensors for leaves: floating-
        point ones of one dtype, arrays of integers and booleans of their own. Returns tensors nested and shaped as y. Traced into
        a graph once for each layout of state and parameters, and never run as Python after that; keep the TensorFlowDynamics
        object, which holds the graphs (pickled and copied without them).
    dtype : "float32" or "float64", inside the graph. The integrator works in float64 either way.
    device : where the graph runs, such as "GPU:0" or "CPU:1"; default the first GPU if there is one, else the CPU.
    compiler : "graph" (default): TensorFlow runs the graphs, those without convolutions compiled with XLA, which costs the least
        per call (on CPUs, convolutions are faster in oneDNN). "native": func, its adjoint system and its Jacobian are compiled
        ahead of time (a few seconds each, once, kept in a cache) and called by the Fortran with no Python in between: same
        values, same steps; one thread of the CPU. "auto": native where it can be had and the rows of the state times the numbers
        in params are at most 1e7, beyond which the threads of graphs win on many cores; else graph.

    Raises NativeError, a RuntimeError, at the first solve of "native" where there is no C++ compiler, TensorFlow is older than
    2.21, or func cannot be compiled so (convolutions, random numbers, tf.Variables).
    """

    def __init__(self, func, dtype="float32", device=None, compiler="graph"):
        if not callable(func):
            raise TypeError(
                f"func must be a function (t, y, params) -> dy/dt in TensorFlow operations, got {type(func).__name__}"
            )
        self.dtype = tf.as_dtype(dtype)
        if self.dtype.name not in FLOAT_TYPES:
            raise ValueError(f"dtype must be one of {', '.join(FLOAT_TYPES)}, got {self.dtype.name!r}")
        if compiler not in COMPILERS:
            raise ValueError(f"compiler must be one of {', '.join(map(repr, COMPILERS))}, got {compiler!r}")
        self._numpy_dtype = np.dtype(self.dtype.as_numpy_dtype)
        self.func = func
        self.device = checked_device(device)
        if compiler == "native" and not self.device.startswith("CPU"):
            raise ValueError(f"compiler='native' makes code for the CPU, got device {self.device!r}")
        self.compiler = compiler if self.device.startswith("CPU") else "graph"
        self._graphs = {}
        self._derived = {}

    def __getstate__(self):
        return {**self.__dict__, "dtype": self.dtype.name, "_graphs": {}, "_derived": {}}

    def __setstate__(self, state):
        self.__dict__.update(state, dtype=tf.as_dtype(state["dtype"]))

    def send(self, leaves):
        if self.compiler != "graph":
            return [self._as_array(leaf) for leaf in leaves]
        return self._tensors(leaves)

    def _tensors(self, leaves):
        with tf.device(self.device):
            return [self._sent(leaf) for leaf in leaves]

    def _sent(self, leaf):
        if not is_differentiable(leaf):
            return tf.convert_to_tensor(leaf)
        if isinstance(leaf, (tf.Tensor, tf.Variable)):
            return tf.cast(tf.convert_to_tensor(leaf), self.dtype)
        return tf.constant(np.asarray(leaf), self.dtype)

    def _as_array(self, leaf):
        array = np.asarray(leaf)
        return array.astype(self._numpy_dtype, copy=False) if array.dtype.kind == "f" else array

    def bind(self, layout, structure, leaves):
        return self._bound("rhs", self.flat_function, layout, structure, leaves)

    def bind_jacobian(self, layout, structure, leaves):
        def make_jacobian(layout, structure):
            flat = self.flat_function(layout, structure)

            def jacobian(t, z, leaves):
                with tf.GradientTape() as tape:
                    tape.watch(z)
                    f = flat(t, z, leaves)
                return tf.reshape(tape.jacobian(f, z, unconnected_gradients=tf.UnconnectedGradients.ZERO), [-1])

            return jacobian

        call = self._bound("jacobian", make_jacobian, layout, structure, leaves)
        return _Jacobian(call, layout.size, self.num_sent(layout))

    def augmented(self, layout, structure):
        return self._derive(_AugmentedTensorFlowDynamics, layout, structure)

    def tangent(self, layout, structure):
        return self._derive(_TangentTensorFlowDynamics, layout, structure)

    def _derive(self, kind, layout, structure):
        key = (kind, layout, structure)
        if key not in self._derived:
            self._derived[key] = kind(self, layout, structure)
        return self._derived[key]

    def flat_function(self, layout, structure):
        """The TensorFlow function (t, z (n,), leaves) -> dz/dt (n,) of func at a layout of the state."""

        def flat(t, z, leaves):
            f = self.func(t, layout.unpack(z, tf.reshape), structure.unflatten(leaves))
            if f is None:
                raise TypeError(f"func returned None; it must return dy/dt, a tensor of shape {layout.shapes[0]}")
            parts = [self._checked_tensor(part, shape) for part, shape in zip(layout.leaves_of(f), layout.shapes)]
            return layout.pack(parts, tf.reshape, lambda flats: tf.concat(flats, 0))

        return flat

    def _checked_tensor(self, f, shape):
        f = tf.convert_to_tensor(f)
        if f.dtype != self.dtype:
            raise TypeError(f"func must return {self.dtype.name}, the dtype of its TensorFlowDynamics, got {f.dtype.name}")
        if f.shape != shape:
            raise ValueError(f"func must return a tensor of the shape of y, {shape}, got {tuple(f.shape)}")
        return f

    def num_sent(self, layout):
        """How many entries of the state, from its beginning, func depends on."""
        return layout.size

    def num_rows(self, layout):
        """How many vectors the state of func is made of, those of its last axis."""
        return sum(prod(shape[:-1]) for shape in layout.shapes)

    def _bound(self, kind, make_function, layout, structure, leaves):
        """call(t, z) of a compiled function, with leaves on the device."""
        leaves = self.send(leaves)
        specs = tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)
        key = (kind, layout, structure, specs)
        if key not in self._graphs:
            function = make_function(layout, structure)
            work = self.num_rows(layout) * sum(prod(shape) for shape, _ in specs)
            self._graphs[key] = self._compile(kind, function, self.num_sent(layout), specs, work)
        compiled = self._graphs[key]
        needs_tensors = self.compiler != "graph" and isinstance(compiled, StateGraph)
        return compiled.bind(self._tensors(leaves) if needs_tensors else leaves)

    def _compile(self, kind, function, num_sent, specs, work):
        if self.compiler == "native" or (self.compiler == "auto" and work <= MOST_WORK):
            try:
                return NativeFunction(function, num_sent, specs, self.dtype)
            except NativeError:
                # A Jacobian has operations that func has not, and is wanted now and then only.
                if self.compiler == "native" and kind == "rhs":
                    raise
        return StateGraph(function, num_sent, specs, self.dtype, self.device)


class _Jacobian:
    """jacobian(t, z) -> (n, n) of a function that gives its first num_sent columns, the others being zero."""

    def __init__(self, call, n, num_sent):
        self.call, self.n, self.num_sent = call, n, num_sent

    @property
    def compiled(self):
        return compiled_of(self.call)

    def __call__(self, t, z):
        columns = self.call(t, z).reshape(self.n, self.num_sent)
        return np.pad(columns, [(0, 0), (0, self.n - self.num_sent)]) if self.num_sent < self.n else columns


class _AugmentedTensorFlowDynamics(TensorFlowDynamics):
    """The adjoint system: f and all its vector-Jacobian products from one graph (see Dynamics.augmented)."""

    def __init__(self, primal, primal_layout, primal_structure):
        # Derivatives of derivatives are seldom wanted, and would take the compiler long.
        compiler = "graph" if isinstance(primal, _AugmentedTensorFlowDynamics) else primal.compiler
        super().__init__(primal.func, primal.dtype, primal.device, compiler)
        self.n, self.rows = primal_layout.size, primal.num_rows(primal_layout)
        self.primal = primal.flat_function(primal_layout, primal_structure)

    def flat_function(self, layout, structure):
        def flat(t, s, leaves):
            z, a = s[: self.n], s[self.n : 2 * self.n]
            floats = [leaf for leaf in leaves if is_differentiable(leaf)]
            with tf.GradientTape() as tape:
                tape.watch([t, z, *floats])
                f = self.primal(t, z, leaves)
            bars = tape.gradient(f, [z, *floats, t], output_gradients=-a, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return tf.concat([f, *(tf.reshape(bar, [-1]) for bar in bars)], axis=0)

        return flat

    def num_sent(self, layout):
        return 2 * self.n

    def num_rows(self, layout):
        return self.rows


class _TangentTensorFlowDynamics(TensorFlowDynamics):
    """The tangent system: f and its directional derivative from one graph (see Dynamics.tangent)."""

    def __init__(self, primal, primal_layout, primal_structure):
        super().__init__(primal.func, primal.dtype, primal.device)
        self.n, self.count = primal_layout.size, primal_structure.count
        self.primal = primal.flat_function(primal_layout, primal_structure)

    def flat_function(self, layout, structure):
        def flat(t, s, params):
            leaves, directions = params[: self.count], params[self.count :]
            z, v = s[: self.n], s[self.n :]
            floats = [leaf for leaf in leaves if is_differentiable(leaf)]
            u = tf.zeros_like(z)
            # The pullback is linear in its cotangent u, so its derivative by u is the tangent (ForwardAccumulator lacks rules).
            with tf.GradientTape() as outer:
                outer.watch(u)
                with tf.GradientTape() as inner:
                    inner.watch([z, *floats])
                    f = self.primal(t, z, leaves)
                bars = inner.gradient(f, [z, *floats], output_gradients=u, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                pairs = zip(bars, [v, *directions])
                inner_product = tf.add_n([tf.reduce_sum(bar * tf.reshape(direction, bar.shape)) for bar, direction in pairs])
            dv = outer.gradient(inner_product, u, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return tf.concat([f, dv], axis=0)

        return flat


def checked_device(device):
    """The name of a device of TensorFlow's, without slashes. Raises ValueError or TypeError, naming those there are."""
    if device is None:
        return "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"
    if isinstance(device, str):
        names = [logical.name for logical in tf.config.list_logical_devices()]
        wanted = device.removeprefix("/").removeprefix("device:")
        if not any(name.upper().endswith(":" + wanted.upper()) for name in names):
            raise ValueError(
                f"device {device!r} is not among TensorFlow's: {', '.join(name.removeprefix('/device:') for name in names)}"
            )
        return wanted.upper()
    raise TypeError(f"device must be a name such as 'CPU:0' or None, got {type(device).__name__}")

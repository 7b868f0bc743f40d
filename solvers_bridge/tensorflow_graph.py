"""TensorFlow dynamics for odeint, and TensorFlow functions as autograd primitives."""

from __future__ import annotations

from math import prod

import numpy as np
import tensorflow as tf
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from .dynamics import Dynamics
from .nested import flatten

FLOAT_TYPES = ("float32", "float64")


class TensorFlowDynamics(Dynamics):
    """func(t, y, params) -> dy/dt in TensorFlow operations, as the dynamics of odeint.

    Parameters
    ----------
    func : t is a scalar tensor, y a tensor of the shape of y0, params the nesting given to odeint with tensors for leaves, all of
        one dtype; returns a tensor of the shape of y. It is traced into a graph once for each shape of state and parameters,
        and never run as Python after that; keep the TensorFlowDynamics object, which holds the graphs.
    dtype : "float32" or "float64", inside the graph. The integrator works in float64 either way.
    device : where the graph runs, such as "GPU:0" or "CPU:1"; default the first GPU if there is one, else the CPU.

    Graphs without convolutions are compiled with XLA, which costs the least per call; on CPUs, convolutions are faster in oneDNN.
    """

    def __init__(self, func, dtype="float32", device=None):
        if not callable(func):
            raise TypeError(
                f"func must be a function (t, y, params) -> dy/dt in TensorFlow operations, got {type(func).__name__}"
            )
        self.dtype = tf.as_dtype(dtype)
        if self.dtype.name not in FLOAT_TYPES:
            raise ValueError(f"dtype must be one of {', '.join(FLOAT_TYPES)}, got {self.dtype.name!r}")
        self.func = func
        self.device = _checked_device(device)
        self._graphs = {}
        self._augmented = {}

    def send(self, leaves):
        with tf.device(self.device):
            return [leaf if isinstance(leaf, tf.Tensor) else tf.constant(np.asarray(leaf), self.dtype) for leaf in leaves]

    def bind(self, shape, structure, leaves):
        return self._bound("rhs", self.flat_function, shape, structure, leaves)

    def bind_jacobian(self, shape, structure, leaves):
        n = prod(shape)

        def make_jacobian(shape, structure):
            flat = self.flat_function(shape, structure)

            def jacobian(t, z, leaves):
                with tf.GradientTape() as tape:
                    tape.watch(z)
                    f = flat(t, z, leaves)
                rows = tape.jacobian(f, z, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                # An augmented system depends on its first entries only, and is sent no others.
                return tf.reshape(tf.pad(rows, [[0, 0], [0, n - rows.shape[1]]]), [-1])

            return jacobian

        call = self._bound("jacobian", make_jacobian, shape, structure, leaves)
        return lambda t, z: call(t, z).reshape(n, n)

    def augmented(self, shape, structure):
        key = (shape, structure)
        if key not in self._augmented:
            self._augmented[key] = _AugmentedTensorFlowDynamics(self, shape, structure)
        return self._augmented[key]

    def flat_function(self, shape, structure):
        """The TensorFlow function (t, z (n,), leaves) -> dz/dt (n,) of func at a shape of state."""

        def flat(t, z, leaves):
            f = self.func(t, tf.reshape(z, shape), structure.unflatten(leaves))
            if f is None:
                raise TypeError(f"func returned None; it must return dy/dt, a tensor of shape {shape}")
            f = tf.convert_to_tensor(f)
            if f.dtype != self.dtype:
                raise TypeError(f"func must return {self.dtype.name}, the dtype of its TensorFlowDynamics, got {f.dtype.name}")
            if f.shape != shape:
                raise ValueError(f"func must return a tensor of the shape of y, {shape}, got {tuple(f.shape)}")
            return tf.reshape(f, [-1])

        return flat

    def num_sent(self, shape):
        """How many entries of the state, from its beginning, func depends on."""
        return prod(shape)

    def _bound(self, kind, make_function, shape, structure, leaves):
        """call(t, z) of a compiled function, with leaves on the device."""
        leaves = self.send(leaves)
        leaf_shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        key = (kind, shape, structure, leaf_shapes)
        if key not in self._graphs:
            self._graphs[key] = _StateGraph(
                make_function(shape, structure), self.num_sent(shape), leaf_shapes, self.dtype, self.device
            )
        return self._graphs[key].bind(leaves)


class _AugmentedTensorFlowDynamics(TensorFlowDynamics):
    """The adjoint system: f and all its vector-Jacobian products from one graph (see Dynamics.augmented)."""

    def __init__(self, primal, primal_shape, primal_structure):
        super().__init__(primal.func, primal.dtype, primal.device)
        self.n = prod(primal_shape)
        self.primal = primal.flat_function(primal_shape, primal_structure)

    def flat_function(self, shape, structure):
        def flat(t, s, leaves):
            z, a = s[: self.n], s[self.n : 2 * self.n]
            with tf.GradientTape() as tape:
                tape.watch([t, z, *leaves])
                f = self.primal(t, z, leaves)
            bars = tape.gradient(f, [z, *leaves, t], output_gradients=-a, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return tf.concat([f, *(tf.reshape(bar, [-1]) for bar in bars)], axis=0)

        return flat

    def num_sent(self, shape):
        return 2 * self.n


class _StateGraph:
    """A compiled function (t, z, leaves) -> flat tensor, called with float64 arrays at the least cost a call.

    t and z travel together as one vector in the graph's dtype; the answer comes back as float64.
    """

    def __init__(self, function, num_sent, leaf_shapes, dtype, device):
        self.num_sent, self.dtype, self.device = num_sent, dtype, device
        self.numpy_dtype = dtype.as_numpy_dtype

        def graph(tz, *leaves):
            with tf.device(device):
                return tf.cast(function(tz[num_sent], tz[:num_sent], list(leaves)), tf.float64)

        specs = [tf.TensorSpec([num_sent + 1], dtype), *(tf.TensorSpec(shape, dtype) for shape in leaf_shapes)]
        self.evaluate = _compiled(graph, specs)

    def bind(self, leaves):
        """call(t, z) -> float64 array, for leaves that are tensors on the device."""
        evaluate, num_sent = self.evaluate, self.num_sent
        tz, tensor = _input_tensor(num_sent + 1, self.numpy_dtype, self.device)

        def bound(t, z):
            tz[:num_sent] = z[:num_sent]
            tz[num_sent] = t
            return evaluate(tf.constant(tz) if tensor is None else tensor, leaves)

        return bound


def _input_tensor(size, dtype, device):
    """An array and a tensor that shares its memory, so that a new state is sent by being written; or None for the tensor.

    TensorFlow shares memory that is aligned to 64 bytes. Only where the graph runs on the host: another device may keep a copy.
    """
    buffer = np.empty(size * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    array = buffer[start : start + size * np.dtype(dtype).itemsize].view(dtype)
    if device != "CPU:0":
        return array, None
    try:
        from tensorflow.python.framework import ops

        tensor = ops.EagerTensor(array, HOST, None)
        return array, tensor if np.shares_memory(tensor._numpy(), array) else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return array, None


HOST = "/job:localhost/replica:0/task:0/device:CPU:0"


def _compiled(graph, specs):
    """evaluate(first, rest) -> array, for a tensor and a list of tensors, of a function compiled for the given TensorSpecs."""
    concrete = tf.function(graph).get_concrete_function(*specs)
    if not _has_convolution(concrete.graph):
        concrete = tf.function(graph, jit_compile=True).get_concrete_function(*specs)
    return _fast_evaluate(concrete, specs) or (lambda first, rest: concrete(first, *rest).numpy())


def _fast_evaluate(concrete, specs):
    """evaluate(first, rest) by TensorFlow's own C entry point, or None if this TensorFlow does not take it.

    The public call spends several times as long on checking a signature that is fixed here as a small graph on its work.
    """
    try:
        from tensorflow.python import pywrap_tfe
        from tensorflow.python.eager import context

        handle, name = context.context()._handle, concrete._inference_function.name
        execute, captured = pywrap_tfe.TFE_Py_Execute, list(concrete.captured_inputs)

        def evaluate(first, rest):
            (output,) = execute(handle, None, name, [first, *rest, *captured], (), 1)
            return output._numpy()  # what numpy() copies

        evaluate.keep = concrete  # TensorFlow forgets the function when its last Python owner goes.
        first, *rest = [tf.zeros(spec.shape, spec.dtype) for spec in specs]
        np.testing.assert_array_equal(evaluate(first, rest), concrete(first, *rest).numpy())
        return evaluate
    except (ImportError, AttributeError, TypeError, ValueError, AssertionError, tf.errors.OpError):
        return None


def _has_convolution(graph):
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return any("Conv" in node.op for node in nodes)


def _checked_device(device):
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


def tensorflow_primitive(fn, dtype=None, device=None, compiled=False):
    """fn, a function of tensors, as an autograd primitive: a function of arrays that autograd differentiates to any order.

    Parameters
    ----------
    fn : takes any number of arguments, each a tensor or a nesting of lists, tuples and dicts of tensors; returns a tensor or a
        list, tuple or dict of tensors. It is traced into a graph once for each nesting, shape and dtype of arguments.
    dtype : floating-point arguments are cast to it, and gradients come back in the dtype of the argument; None keeps each
        argument's own. Integers and booleans are passed as they are and have no gradient.
    device : as for TensorFlowDynamics.
    compiled : value and vector-Jacobian product as two graphs compiled with XLA, the second of which computes the value again
        instead of keeping what is in between; pays for loops over many small operations.

    Returns a function of the same arguments that returns arrays nested as fn nests tensors.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function of tensors, got {type(fn).__name__}")
    dtype = None if dtype is None else tf.as_dtype(dtype)
    if dtype is not None and dtype.name not in FLOAT_TYPES:
        raise ValueError(f"dtype must be None or one of {', '.join(FLOAT_TYPES)}, got {dtype.name!r}")
    device = _checked_device(device)
    name = getattr(fn, "__name__", "arguments")
    primitives = {}

    def wrapped(*args):
        leaves, structure = flatten(args, name, integer_arrays_are_leaves=True)
        if structure not in primitives:
            primitives[structure] = _LeafPrimitive(fn, structure, dtype, device, compiled)
        return primitives[structure](leaves)

    wrapped.__name__, wrapped.__doc__ = name, fn.__doc__
    return wrapped


class _LeafPrimitive:
    """fn at one nesting of its arguments, as an autograd primitive of their leaves."""

    def __init__(self, fn, structure, dtype, device, compiled):
        self.dtype, self.device, self.compiled = dtype, device, compiled

        def on_leaves(leaves):
            with tf.device(device):
                outputs = fn(*structure.unflatten(leaves))
            if outputs is None:
                raise TypeError(f"{getattr(fn, '__name__', 'fn')} returned None; it must return a tensor or a nesting of tensors")
            return tf.nest.map_structure(tf.convert_to_tensor, outputs)

        self.on_leaves = on_leaves
        self.graph = tf.function(on_leaves, jit_compile=compiled or None)
        self.vjp_graph = tf.function(self._recomputed_gradients, jit_compile=True)
        self.traced_gradients = {}

    def __call__(self, leaves):
        call = _Call(differentiated=any(isbox(leaf) for leaf in leaves))
        flat = _evaluate(self, call, *leaves)
        if not tf.nest.is_nested(call.nesting):
            return flat
        return tf.nest.pack_sequence_as(call.nesting, [flat[i] for i in range(len(call.outputs))])

    def evaluate(self, call, leaves):
        """An array, or a tuple of them where fn returns a nesting; what the gradient needs is left in call."""
        tensors = [self._send(leaf) for leaf in leaves]
        if call.differentiated and not self.compiled:
            with tf.GradientTape(persistent=True) as call.tape:
                call.tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
                outputs = self.graph(tensors)
        else:
            outputs = self.graph(tensors)
        call.tensors = tensors if call.differentiated else None
        call.nesting, call.outputs = tf.nest.map_structure(lambda _: None, outputs), tf.nest.flatten(outputs)
        arrays = tuple(np.asarray(output) for output in call.outputs)
        return arrays if tf.nest.is_nested(outputs) else arrays[0]

    def _send(self, leaf):
        array = np.asarray(leaf)
        return tf.constant(array, self.dtype if self.dtype is not None and array.dtype.kind == "f" else array.dtype)

    def pullback(self, call, leaves, wanted, outputs_bar):
        """Cotangents of the leaves numbered in wanted, given that of what evaluate returned."""
        bars = outputs_bar if tf.nest.is_nested(call.nesting) else (outputs_bar,)
        bars = [bars[i] for i in range(len(call.outputs))]
        if any(isbox(value) for value in (*leaves, *bars)):
            return self._traced_gradients(wanted)(list(leaves), list(bars))
        if self.compiled:
            gradients = self.vjp_graph(call.tensors, [tf.constant(bar) for bar in bars], wanted)
        else:
            gradients = _gradients(call.tape, call.outputs, [call.tensors[i] for i in wanted], bars)
        return [_array_like(leaves[i], gradient) for i, gradient in zip(wanted, gradients)]

    def _traced_gradients(self, wanted):
        """The vector-Jacobian product as a primitive of leaves and cotangents, for derivatives of derivatives."""
        if wanted not in self.traced_gradients:
            self.traced_gradients[wanted] = tensorflow_primitive(
                lambda leaves, bars: self._recomputed_gradients(leaves, bars, wanted), self.dtype, self.device, self.compiled
            )
        return self.traced_gradients[wanted]

    def _recomputed_gradients(self, leaves, bars, wanted):
        with tf.GradientTape() as tape:
            tape.watch([leaves[i] for i in wanted])
            outputs = tf.nest.flatten(self.on_leaves(leaves))
        return _gradients(tape, outputs, [leaves[i] for i in wanted], bars)


# One primitive for all functions: autograd keeps every primitive, with all that it refers to, for ever.
@primitive
def _evaluate(function, call, *leaves):
    return function.evaluate(call, leaves)


def _evaluate_vjp(argnums, outputs, args, kwargs):
    function, call, *leaves = args
    wanted = tuple(argnum - 2 for argnum in argnums)
    return lambda outputs_bar: function.pullback(call, leaves, wanted, outputs_bar)


defvjp_argnums(_evaluate, _evaluate_vjp)


class _Call:
    """One evaluation: the nesting of its outputs, and what its vector-Jacobian product needs (tape, inputs, outputs)."""

    __slots__ = ("differentiated", "nesting", "tape", "tensors", "outputs")

    def __init__(self, differentiated):
        self.differentiated = differentiated


def _gradients(tape, outputs, inputs, bars):
    """Cotangents of inputs, given those of outputs; outputs that are not floating-point have none."""
    pairs = [(output, tf.cast(bar, output.dtype)) for output, bar in zip(outputs, bars) if output.dtype.is_floating]
    return tape.gradient(
        [output for output, _ in pairs],
        inputs,
        output_gradients=[bar for _, bar in pairs],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )


def _array_like(leaf, bar):
    return np.asarray(bar).astype(np.asarray(leaf).dtype, copy=False)

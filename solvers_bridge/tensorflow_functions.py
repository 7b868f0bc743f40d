"""TensorFlow functions as autograd primitives."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from .dynamics.tensorflow import FLOAT_TYPES, checked_device
from .dynamics.tensorflow_call import away_from_tapes
from .nested import flatten


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
    device = checked_device(device)
    name = getattr(fn, "__name__", "arguments")
    primitives = {}

    def wrapped(*args):
        leaves, structure = flatten(args, name)
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
    return away_from_tapes(function.evaluate, call, leaves)


def _evaluate_vjp(argnums, outputs, args, kwargs):
    function, call, *leaves = args
    wanted = tuple(argnum - 2 for argnum in argnums)
    return lambda outputs_bar: away_from_tapes(function.pullback, call, leaves, wanted, outputs_bar)


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

"""Calling a TensorFlow graph at the least cost a call: the private entry points, each checked once, with the public way behind.

Besides native, the only place in this package that uses private names of TensorFlow. What is gone in a TensorFlow is done
without, more slowly.
"""

from __future__ import annotations

import contextvars
import ctypes
import threading
from concurrent.futures import Future

import numpy as np
import tensorflow as tf


class StateGraph:
    """A compiled function (t, z, leaves) -> flat tensor, called with float64 arrays at the least cost a call.

    t and z travel together as one vector in the graph's dtype; the answer comes back as float64.
    """

    def __init__(self, function, num_sent, leaf_specs, dtype, device):
        self.num_sent, self.dtype, self.device = num_sent, dtype, device
        self.numpy_dtype = dtype.as_numpy_dtype

        def graph(tz, *leaves):
            with tf.device(device):
                return tf.cast(function(tz[num_sent], tz[:num_sent], list(leaves)), tf.float64)

        specs = [tf.TensorSpec([num_sent + 1], dtype), *(tf.TensorSpec(*spec) for spec in leaf_specs)]
        self.evaluate = in_fresh_thread(_compiled, graph, specs, device.startswith("CPU"))

    def bind(self, leaves):
        """call(t, z) -> float64 array, for leaves that are tensors on the device."""
        evaluate, num_sent = self.evaluate, self.num_sent
        tz, tensor = _input_tensor(num_sent + 1, self.numpy_dtype, self.device)

        def bound(t, z):
            tz[:num_sent] = z[:num_sent]
            tz[num_sent] = t
            return evaluate(tf.constant(tz) if tensor is None else tensor, leaves)

        return bound


def in_fresh_thread(function, *arguments):
    """function(*arguments), called in a thread of its own, for graphs that are kept.

    TensorFlow has tapes, accumulators, scopes and AutoGraph's status by the thread. Of a caller who has paused the tapes
    (tf.init_scope, a ForwardAccumulator), those in the graph would record nothing, and its gradients would be zero ever after.
    """
    context, outcome = contextvars.copy_context(), Future()

    def run():
        try:
            outcome.set_result(context.run(function, *arguments))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        thread.join()
    except BaseException as interrupt:  # Ctrl-C, which only this thread is told of
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(type(interrupt)))
        thread.join()
        raise
    return outcome.result()


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


def _compiled(graph, specs, on_cpu):
    """evaluate(first, rest) -> array, for a tensor and a list of tensors, of a function compiled for the given TensorSpecs.

    With XLA, which costs the least a call; but TensorFlow's own convolutions are faster, and on CPUs so are its large products.
    """
    concrete = tf.function(graph).get_concrete_function(*specs)
    slower = ("Conv", "PyFunc", *(["ImagePatches"] if on_cpu else []))
    if not any(_has_operation(concrete.graph, name) for name in slower):
        concrete = _by_xla(graph, specs) or concrete
    return _fast_evaluate(concrete, specs) or (lambda first, rest: concrete(first, *rest).numpy())


def _by_xla(graph, specs):
    """The function compiled with XLA, or None where it has operations that XLA does not know."""
    concrete = tf.function(graph, jit_compile=True).get_concrete_function(*specs)
    try:
        concrete(*(tf.zeros(spec.shape, spec.dtype) for spec in specs))
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return None
    return concrete


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


def is_watched(tensors):
    """Whether an active GradientTape or ForwardAccumulator follows any of tensors. False where TensorFlow does not say."""
    try:
        from tensorflow.python import pywrap_tfe

        return pywrap_tfe.TFE_Py_TapeSetPossibleGradientTypes(list(tensors)) != 0
    except (ImportError, AttributeError, TypeError):
        return False


def has_tangent(tensors):
    """Whether an active ForwardAccumulator follows any of tensors. False where TensorFlow does not say."""
    try:
        from tensorflow.python import pywrap_tfe

        _, tangents = pywrap_tfe.TFE_Py_PackJVPs(list(tensors))
        return bool(tangents)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def may_record():
    """Whether a GradientTape or ForwardAccumulator is active. True where TensorFlow does not say."""
    try:
        from tensorflow.python import pywrap_tfe

        return not pywrap_tfe.TFE_Py_TapeSetIsEmpty()
    except (ImportError, AttributeError, TypeError):
        return True


def away_from_tapes(function, *arguments):
    """function(*arguments), which has tapes of its own; in a fresh thread where this one has others, active or paused."""
    try:
        from tensorflow.python import pywrap_tfe

        alone = pywrap_tfe.TFE_Py_TapeSetIsEmpty() and not pywrap_tfe.TFE_Py_TapeSetIsStopped()
    except (ImportError, AttributeError, TypeError):
        alone = False
    return function(*arguments) if alone else in_fresh_thread(function, *arguments)


def _has_operation(graph, name):
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return any(name in node.op for node in nodes)

"""Calling a TensorFlow graph at the least cost a call: the private entry points, each checked once, with the public way behind.

Besides native, the only place in this package that uses private names of TensorFlow. What is gone in a TensorFlow is done
without, more slowly.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import os
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

        self.specs = [tf.TensorSpec([num_sent + 1], dtype), *(tf.TensorSpec(*spec) for spec in leaf_specs)]
        self.concrete, self.by_xla = in_fresh_thread(_compiled, graph, self.specs, device.startswith("CPU"))

    @functools.cached_property
    def evaluate(self):
        """evaluate(first, rest) -> array, for a tensor and a list of tensors."""
        concrete = self.concrete
        fast = in_fresh_thread(_fast_evaluate, concrete, self.specs)
        return fast or (lambda first, rest: concrete(first, *rest).numpy())

    @functools.cached_property
    def evaluate_in_place(self):
        """As evaluate, by this thread alone."""
        return _in_place(self.concrete)

    def bind(self, leaves):
        """call(t, z) -> float64 array, for leaves that are tensors on the device."""
        evaluate, num_sent = self._evaluate_here(), self.num_sent
        tz, tensor = _input_tensor(num_sent + 1, self.numpy_dtype, self.device)

        def bound(t, z):
            tz[:num_sent] = z[:num_sent]
            tz[num_sent] = t
            return evaluate(tf.constant(tz) if tensor is None else tensor, leaves)

        return bound

    def _evaluate_here(self):
        """The way of evaluating for this thread, which TensorFlow's threads of graphs may all be waiting for.

        What XLA has compiled is one operation, which the calling thread runs itself.
        """
        if self.by_xla or not _is_of_tensorflow():
            return self.evaluate
        if all(tensor.dtype != tf.resource for tensor in self.concrete.captured_inputs):
            return self.evaluate_in_place
        if len(_holding) >= _graph_threads():
            raise NotImplementedError(
                "func uses a tf.Variable that is not in params, for which TensorFlow needs one more thread inside a graph:"
                " give the variable in params, or call tf.config.threading.set_inter_op_parallelism_threads before anything else"
            )
        return self.evaluate


_holding: set[int] = set()  # by their identifiers


@contextlib.contextmanager
def holding_its_thread():
    """While Python is called in the midst of a graph: TensorFlow's thread waits, and can run no other graph.

    On one core there is but one such thread, and of two solves side by side each may hold one of two.
    """
    me = threading.get_ident()
    outermost = _is_of_tensorflow() and me not in _holding
    if outermost:
        _holding.add(me)
    try:
        yield
    finally:
        if outermost:
            _holding.discard(me)


def _is_of_tensorflow():
    """Whether this thread is none of Python's."""
    return type(threading.current_thread()).__name__ == "_DummyThread"


def _graph_threads():
    """How many threads TensorFlow has for operations of graphs."""
    chosen = tf.config.threading.get_inter_op_parallelism_threads()
    return chosen or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


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
    """A function compiled for the given TensorSpecs, and whether with XLA.

    XLA costs the least a call; but TensorFlow's own convolutions are faster, and on CPUs so are its large products.
    """
    concrete = tf.function(graph).get_concrete_function(*specs)
    slower = ("Conv", "PyFunc", *(["ImagePatches"] if on_cpu else []))
    compiled = None if any(_has_operation(concrete.graph, name) for name in slower) else _by_xla(graph, specs)
    return compiled or concrete, compiled is not None


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


def _in_place(concrete):
    """evaluate(first, rest) for a compiled function without XLA and without variables, run by the calling thread alone."""
    inner = concrete.graph
    names = [tensor.name for tensor in (*inner.inputs, *inner.outputs)]
    with tf.Graph().as_default() as graph:
        *inputs, output = tf.import_graph_def(inner.as_graph_def(), return_elements=names, name="")
    session, captured = tf.compat.v1.Session(graph=graph), [np.asarray(tensor) for tensor in concrete.captured_inputs]
    call = _callable(session, inputs, output, tf.compat.v1.RunOptions(inter_op_thread_pool=-1))

    def evaluate(first, rest):
        return call(np.asarray(first), *map(np.asarray, rest), *captured)

    evaluate.keep = concrete  # it has Python's functions that the graph calls
    return evaluate


def _callable(session, inputs, output, options):
    """call(*arrays) -> array of a session, by its private entry point, which costs a third, where TensorFlow has it."""
    try:
        from tensorflow.core.protobuf import config_pb2

        wanted = config_pb2.CallableOptions(run_options=options, feed=[tensor.name for tensor in inputs], fetch=[output.name])
        call = session._make_callable_from_options(wanted)
        return lambda *arrays: call(*arrays)[0]
    except (ImportError, AttributeError, TypeError, ValueError):
        return lambda *arrays: session.run(output, dict(zip(inputs, arrays, strict=True)), options=options)


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

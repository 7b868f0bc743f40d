"""odeint for TensorFlow: tensors in and out, differentiable under tf.GradientTape, in and out of tf.function.

The primitive is a function (t, *leaves of y0, *leaves of params) -> zs of float64 tensors; casting and unpacking are
TensorFlow's. Its first derivative is a reverse sweep (reverse.gradient), with no autograd about it; derivatives of that are
autograd's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import tensorflow as tf

from .arguments import check
from .dynamics.base import Dynamics
from .dynamics.tape import vjp
from .dynamics.tensorflow import FLOAT_TYPES, TensorFlowDynamics
from .dynamics.tensorflow_call import has_tangent, holding_its_thread, is_watched, may_record
from .integrators.fixed_grid import FixedGrid
from .nested import Structure, flatten, flatten_state, is_differentiable
from .odeint import odeint as odeint_of_autograd
from .odeint import tell_states
from .reverse import gradient
from .solve import Kept, forward, with_stored
from .statistics import SolverError


def odeint(
    func: Callable | Dynamics,
    y0: Any,
    t: Any,
    params: Any = (),
    *,
    method: str = "adams",
    rtol: Any = 1.5e-8,
    atol: Any = 1.5e-8,
    options: dict | None = None,
    adjoint_method: str | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_options: dict | None = None,
) -> Any:
    """Solve dy/dt = func(t, y, params), y(t[0]) = y0, and return tensors of (len(t), *shape), nested as y0 and of its dtypes.

    Differentiable under tf.GradientTape with respect to y0, t and params, to any order, eagerly and inside tf.function; under a
    tf.autodiff.ForwardAccumulator eagerly.

    Parameters
    ----------
    func : function (t, y, params) -> dy/dt in TensorFlow operations, or a TensorFlowDynamics. A function becomes one, of dtype
        float32 if that is what all of y0 is of and float64 otherwise; it is kept for the next call with the same function, and
        Python values that func reads are frozen as in a tf.function. What func uses besides t, y and params has no gradient: a
        variable or tensor that a tape watches must come through params.
    y0, params : any nesting of lists, tuples and dicts of tensors, variables, arrays and numbers.
    t : one or more times, increasing or decreasing; a tensor or an array.
    method, rtol, atol, options, adjoint_* : as for solvers_bridge.odeint, and not tensors.

    Raises what solvers_bridge.odeint raises; inside tf.function, when the graph runs, TensorFlow makes an UnknownError or
    InvalidArgumentError of it that holds the message. TypeError: func uses what a tape watches, or, inside tf.function, a
    trainable variable, a tensor of the function around it, or what a tape outside watches while the function is traced.
    """
    y0, t, params = (tf.nest.map_structure(_read, tree) for tree in (y0, t, params))
    y0_leaves, structure_of_y0 = flatten_state(y0)
    y0_leaves = [_real(_as_tensor(leaf), "y0") for leaf in y0_leaves]
    _, structure = flatten(tf.nest.map_structure(_stand_in, params))
    leaves = [_as_tensor(leaf) for leaf in structure.leaves_of(params)]
    dynamics = func if isinstance(func, Dynamics) else _dynamics_of(func, _dtype_of(y0_leaves))
    t_may_vary = any(tf.is_tensor(part) for part in tf.nest.flatten(t))
    t = _one_dimensional(tf.cast(_real(_as_tensor(t), "t"), tf.float64))
    if isinstance(dynamics, TensorFlowDynamics):
        _refuse_captured(dynamics, t, structure_of_y0.unflatten(y0_leaves), structure.unflatten(leaves))
    means = {
        "method": method,
        "rtol": rtol,
        "atol": atol,
        "options": options,
        "adjoint_method": adjoint_method,
        "adjoint_rtol": adjoint_rtol,
        "adjoint_atol": adjoint_atol,
        "adjoint_options": adjoint_options,
    }
    wants_t = t_may_vary and (not tf.executing_eagerly() or is_watched([t]))
    solve = _Solve(dynamics, structure_of_y0, structure, means, wants_t, Kept())
    zs = solve(t, *(tf.cast(leaf, tf.float64) for leaf in y0_leaves), *map(_in_float64, leaves))
    parts = tf.split(zs, [tf.size(leaf) for leaf in y0_leaves], axis=1)
    return structure_of_y0.unflatten([_states_like(leaf, part, t) for leaf, part in zip(y0_leaves, parts)])


def _read(value):
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) or hasattr(value, "__tf_tensor__") else value


def _as_tensor(leaf):
    """leaf as a tensor; numbers that are none yet are float64."""
    if tf.is_tensor(leaf):
        return leaf
    if any(tf.is_tensor(part) for part in tf.nest.flatten(leaf)):
        return tf.convert_to_tensor(leaf)
    return tf.constant(np.asarray(leaf))


def _real(tensor, name):
    """tensor. TypeError where a cast to floats would drop something, or make numbers of what are none."""
    dtype = tensor.dtype
    if dtype.is_complex and name == "y0":
        raise TypeError(
            "y0 must be real; for a complex state pass tf.stack([tf.math.real(y0), tf.math.imag(y0)]) and give func the same form"
        )
    if not (dtype.is_floating or dtype.is_integer or (dtype.is_bool and name == "y0")):
        raise TypeError(f"{name} must be an array of real numbers, got dtype {dtype.name}")
    return tensor


def _one_dimensional(t):
    """t. ValueError where its shape, as far as it is known, is not (T,) with T at least 1."""
    if t.shape.rank not in (None, 1) or t.shape.num_elements() == 0:
        raise ValueError(f"t must be one-dimensional with at least one time, got shape {t.shape}")
    return t


def _stand_in(leaf):
    """An array of a tensor's kind, for its place in a nesting."""
    return np.zeros(1, leaf.dtype.as_numpy_dtype) if tf.is_tensor(leaf) else leaf


def _in_float64(leaf):
    return tf.cast(leaf, tf.float64) if leaf.dtype.is_floating else leaf


def _states_like(leaf, part, t):
    """The states (T, *shape) of one leaf of y0, from its columns of zs."""
    states = tf.reshape(part, tf.concat([[-1], tf.shape(leaf)], 0))
    if leaf.shape.rank is not None:
        states.set_shape([t.shape[0] if t.shape.rank == 1 else None, *leaf.shape])
    return tf.cast(states, leaf.dtype) if leaf.dtype.is_floating else states


def _dtype_of(leaves):
    dtypes = {leaf.dtype.name for leaf in leaves}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= set(FLOAT_TYPES) else "float64"


@lru_cache(maxsize=64)
def _kept_dynamics(func, dtype):
    return TensorFlowDynamics(func, dtype)


def _dynamics_of(func, dtype):
    """The TensorFlowDynamics of func, whose graphs are compiled once."""
    try:
        return _kept_dynamics(func, dtype)
    except TypeError:
        return TensorFlowDynamics(func, dtype)  # not hashable, or no function


def _refuse_captured(dynamics, t, y0, params):
    """Raise TypeError if func uses what should have had a gradient and did not come through its arguments."""
    if tf.executing_eagerly():
        if not may_record():
            return

        def copied(leaf):
            return tf.constant(leaf.numpy()) if tf.is_tensor(leaf) else leaf

        # Of copies that no tape watches: what is watched in the end came from elsewhere.
        arguments = tf.nest.map_structure(copied, (t[0], y0, params))
        used = is_watched(tf.nest.flatten(dynamics.func(*_cast(arguments, dynamics.dtype))))
    else:
        arguments = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype) if tf.is_tensor(leaf) else leaf, (t[0], y0, params)
        )
        graph = tf.function(lambda *args: dynamics.func(*_cast(args, dynamics.dtype))).get_concrete_function(*arguments).graph
        captured = [outer for outer, _ in graph.captures]
        eager = [outer for outer in captured if isinstance(outer, tf.__internal__.EagerTensor)]
        around = [outer for outer in captured if not isinstance(outer, tf.__internal__.EagerTensor)]
        # Of an eager tensor, a tape that begins to watch it once the graph is there cannot be known.
        used = bool(graph.trainable_variables) or is_watched(eager) or any(outer.dtype != tf.resource for outer in around)
    if used:
        raise TypeError(
            "func uses a variable or a tensor that it was not given, and its gradient would be lost; pass it in params, through "
            "which gradients flow"
        )


def _cast(tree, dtype):
    return tf.nest.map_structure(
        lambda leaf: tf.cast(leaf, dtype) if tf.is_tensor(leaf) and leaf.dtype.is_floating else leaf, tree
    )


class _Solve(NamedTuple):
    """One solve: everything about it that is no tensor."""

    dynamics: Dynamics
    structure_of_y0: Structure
    structure: Structure
    means: dict
    wants_t: bool
    kept: Kept  # of the last forward solve, in a tf.function of many: its evaluations say as much as is asked of them

    def __call__(self, *inputs):
        """zs (T, n) for inputs (t, *leaves of y0, *leaves of params)."""

        @tf.custom_gradient
        def solve(*inputs):
            def pullback(inputs, outputs, zs_bar, _):
                return self._gradient(outputs[1], zs_bar, *inputs)

            zs, every = _call(self._forward, inputs, 2, pullback)
            return (zs, every), _with_none_for_variables(partial(pullback, inputs, (zs, every)))

        return solve(*inputs)[0]

    def _gradient(self, every, zs_bar, *inputs):
        """Cotangents of the inputs. every: all states that were stored, which are known and not differentiated."""

        @tf.custom_gradient
        def first(zs_bar, *inputs):
            def pullback(inputs, outputs, bar):
                return [None, *_derivative(self._traced_backward, inputs[1:], bar)]

            arguments = every, zs_bar, *inputs
            (bars,) = _call(self._backward, arguments, 1, pullback)
            return bars, _with_none_for_variables(lambda bar: pullback(arguments, bars, bar)[1:])

        return _unpacked(first(zs_bar, *inputs), inputs)

    def _problem(self, t, rest):
        """What check makes of arrays, and the order in which output times and stored ones are solved."""
        count = self.structure_of_y0.count
        y0, params = self.structure_of_y0.unflatten(rest[:count]), self.structure.unflatten(rest[count:])
        problem, y0_leaves, t, leaves, stored = check(self.dynamics, y0, t, params, **self.means)
        z0 = problem.layout.pack(y0_leaves, np.reshape, np.concatenate)
        inner, order = with_stored(t, stored)
        return problem, z0, np.concatenate([t, inner])[order], leaves, order

    def _forward(self, t, *rest):
        problem, z0, times, leaves, order = self._problem(t, rest)
        try:
            every = forward(problem._replace(keep=self.kept), z0, times, leaves)
        except SolverError as error:
            tell_states(error, problem.layout, t)
            raise
        return every[np.flatnonzero(order < len(t))], every

    def _backward(self, every, zs_bar, t, *rest):
        problem, z0, times, leaves, order = self._problem(t, rest)
        if problem.discrete and isinstance(problem.solver.integrator, FixedGrid):
            return (self._traced_backward(zs_bar, t, *rest),)
        if problem.discrete or problem.reconstruction == "interpolate":
            problem = problem._replace(keep=Kept(steps=True))
            forward(problem, z0, times, leaves)
        else:
            problem = problem._replace(keep=self.kept)
        rows = order < len(t)
        every_bar = np.zeros_like(every)
        every_bar[rows] = zs_bar
        z0_bar, times_bar, theta_bar = gradient(problem, times, every, every_bar, leaves, wants_t=self.wants_t)
        return (np.concatenate([times_bar[rows], z0_bar, theta_bar]),)

    def _traced_forward(self, t, *rest):
        count = self.structure_of_y0.count
        y0, params = self.structure_of_y0.unflatten(rest[:count]), self.structure.unflatten(rest[count:])
        ys = odeint_of_autograd(self.dynamics, y0, t, params, **self.means)
        return anp.concatenate([anp.reshape(y, (len(t), -1)) for y in self.structure_of_y0.leaves_of(ys)], axis=1)

    def _traced_backward(self, zs_bar, *inputs):
        return _vjp_of_floats(self._traced_forward, inputs, zs_bar)


def _vjp_of_floats(function, inputs, bar):
    """Cotangents of those of inputs that are floating-point, end to end."""
    floats = [i for i, value in enumerate(inputs) if is_differentiable(value)]

    def of_floats(*values):
        every = list(inputs)
        for i, value in zip(floats, values):
            every[i] = value
        return function(*every)

    _, pullback = vjp(of_floats, *(inputs[i] for i in floats))
    return anp.concatenate([anp.reshape(part, (-1,)) for part in pullback(bar)])


def _derivative(function, inputs, bar):
    """Cotangents of inputs of a function in autograd.numpy, for tensors; differentiable in its turn."""

    def backward(bar, *inputs):
        return _vjp_of_floats(function, inputs, bar)

    @tf.custom_gradient
    def call(bar, *inputs):
        def pullback(inputs, outputs, bars_bar):
            return _derivative(backward, inputs, bars_bar)

        (bars,) = _call(lambda *arrays: (backward(*arrays),), (bar, *inputs), 1, pullback)
        return bars, _with_none_for_variables(partial(pullback, (bar, *inputs), bars))

    return _unpacked(call(bar, *inputs), inputs)


def _with_none_for_variables(pullback):
    """pullback for custom_gradient, which asks for gradients of the variables that func uses: none that anybody wants is used."""

    def with_variables(*bars, variables=None):
        inputs_bars = pullback(*bars)
        return (inputs_bars, [None] * len(variables)) if variables else inputs_bars

    return with_variables


def _unpacked(flat, inputs):
    """Parts of flat shaped as those of inputs that are floating-point; None for the others."""
    sizes = [tf.size(value) if value.dtype.is_floating else 0 for value in inputs]
    parts = tf.split(flat, sizes)
    return [tf.reshape(part, tf.shape(value)) if value.dtype.is_floating else None for part, value in zip(parts, inputs)]


_operations = itertools.count()


def _call(function, inputs, count, pullback):
    """function of arrays, which returns count arrays of float64, called with tensors; at once, or as an operation of a graph.

    pullback(inputs, outputs, *bars), cotangents of inputs: the operation's own gradient, for where TensorFlow loses the custom
    gradient around it and takes it for zero: in vectorized_map, and in jacobians that are differentiated in their turn.
    """

    def on_arrays(*arrays):
        with holding_its_thread():
            return tuple(np.asarray(out, np.float64) for out in function(*map(np.asarray, arrays)))

    if all(hasattr(value, "numpy") for value in inputs):
        return [tf.constant(out) for out in on_arrays(*(value.numpy() for value in inputs))]
    if has_tangent(inputs):
        raise TypeError(
            "a ForwardAccumulator follows a solve inside tf.function, where TensorFlow would make its derivative zero; forward "
            "mode works eagerly, without tf.function"
        )
    # Without a state of its own, a solve whose result nobody uses is pruned; but of constants alone it would be folded, while the
    # graph around it is locked. What may be fed is no constant.
    fed = tf.raw_ops.PlaceholderWithDefault(input=inputs[0], shape=inputs[0].shape)
    name = f"SolversBridge-{next(_operations)}"
    tf.RegisterGradient(name)(lambda op, *bars: pullback(list(op.inputs), list(op.outputs), *bars))
    with fed.graph.gradient_override_map({"PyFuncStateless": name}):
        return tf.numpy_function(on_arrays, [fed, *inputs[1:]], [tf.float64] * count, stateful=False)

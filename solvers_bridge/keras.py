"""ODEBlock: a Keras 3 layer that solves dy/dt = f(t, y) of a layer or a function f, with Keras's TensorFlow backend."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

try:
    import keras
except ImportError as error:
    raise ImportError("solvers_bridge.keras needs Keras 3: pip install 'neural-ode-repro[keras]'") from error

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"solvers_bridge.keras needs Keras's TensorFlow backend, and Keras runs on {keras.backend.backend()!r}; set "
        "KERAS_BACKEND=tensorflow before Keras is imported"
    )

import numpy as np
import tensorflow as tf

from .arguments import check, checked_times, checked_tolerance
from .dynamics.tensorflow import FLOAT_TYPES, TensorFlowDynamics
from .dynamics.tensorflow_call import in_fresh_thread
from .nested import Layout
from .tensorflow import odeint

TOLERANCES = ("rtol", "atol", "adjoint_rtol", "adjoint_atol")
MEANS = ("method", "rtol", "atol", "options", "adjoint_method", "adjoint_rtol", "adjoint_atol", "adjoint_options")


@keras.saving.register_keras_serializable(package="solvers_bridge")
class ODEBlock(keras.layers.Layer):
    """y(t[-1]) of dy/dt = func(t, y), y(t[0]) = the layer's input; the whole batch is one system, as in the paper's ODE-Net.

    Parameters
    ----------
    func : a Keras layer or model, which is called as func(t, y) if the first argument of its call is named t, and as func(y)
        otherwise; or a function func(t, y) in keras.ops or TensorFlow, without variables of its own. t is a scalar tensor; what
        comes back is shaped and nested as y. To be saved, a function has to be registered with Keras, as ever.
    t : two or more times, increasing or decreasing.
    return_sequences : whether the states at all times come out, (batch, len(t), *shape), instead of the last one.
    method, rtol, atol, options, adjoint_* : as for solvers_bridge.odeint. The default is the paper's for classification.

    Metrics NAME_nfe_forward and NAME_nfe_backward, of which NAME is the layer's, are means over calls and over gradients of the
    evaluations that they took; Keras reports them with the model's own. A mask is passed on, and given to func if it takes one.

    func is traced once, and what it reads besides t, y and its variables (attributes of Python, say) keeps its value of then. It
    is called as in inference, never with training=True.

    Raises TypeError for a func that updates variables of its own in training, as batch normalisation and dropout do at any depth:
    a solver evaluates it as often as it likes, at times in no order. ValueError for a dtype other than float32 and float64;
    ValueError and TypeError for times, methods, tolerances and options as solvers_bridge.odeint, when the layer is made.
    """

    def __init__(
        self,
        func: Callable,
        t: Sequence[float] = (0.0, 1.0),
        *,
        return_sequences: bool = False,
        method: str = "adams",
        rtol: Any = 1e-3,
        atol: Any = 1e-3,
        options: dict | None = None,
        adjoint_method: str | None = None,
        adjoint_rtol: Any = None,
        adjoint_atol: Any = None,
        adjoint_options: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(func):
            raise TypeError(f"func must be a Keras layer or a function (t, y) -> dy/dt, got {type(func).__name__}")
        times = checked_times(np.asarray(t))
        if len(times) < 2:
            raise ValueError(f"t must hold two or more times, got {t!r}")
        if self.compute_dtype not in FLOAT_TYPES:
            raise ValueError(f"dtype must be one of {', '.join(FLOAT_TYPES)}, got {self.compute_dtype!r}")
        self.func: Any = func
        self.t, self.return_sequences = times.tolist(), bool(return_sequences)
        given = (method, rtol, atol, options, adjoint_method, adjoint_rtol, adjoint_atol, adjoint_options)
        means = dict(zip(MEANS, given))
        _check_means(times, means)
        # Kept out of Keras's tracking, which would wrap the dicts.
        self._means = _Held(means)
        self._dynamics = _Held(_Counted(self._evaluate, self.compute_dtype))
        self.supports_masking = True
        self.supports_jit = False  # the integrators are no graph
        self.nfe_forward = keras.metrics.Mean(name=f"{self.name}_nfe_forward")
        self.nfe_backward = keras.metrics.Mean(name=f"{self.name}_nfe_backward")

    @property
    def _is_layer(self):
        return isinstance(self.func, keras.layers.Layer)

    def build(self, input_shape: Any) -> None:
        if self._is_layer:
            # Eagerly, whatever graph is being traced: variables belong to none.
            with tf.init_scope():
                self._build_func(input_shape)
        self.built = True

    def _build_func(self, input_shape):
        def zeros(shape):
            return tf.zeros([1 if size is None else size for size in shape], self.compute_dtype)

        y = _map_shapes(zeros, input_shape)
        t = tf.constant(self.t[0], self.compute_dtype)
        if not self.func.built:
            self.func(*self._arguments(t, y))
        # In a thread of its own, since Keras keeps `training` by the thread: the layers around this one are not to hear of it.
        changed = in_fresh_thread(_updated_in_training, self.func, self._arguments(t, y))
        if changed:
            raise TypeError(
                f"func must not update variables while it runs, as batch normalisation and dropout do: {', '.join(changed)}; a "
                "solver evaluates it as often as it likes. Put such a layer before or behind the ODEBlock"
            )

    def _arguments(self, t, y):
        """What func, a layer, takes."""
        return (t, y) if next(iter(inspect.signature(self.func.call).parameters), None) == "t" else (y,)

    def _evaluate(self, t, y, params):
        """f(t, y) in TensorFlow, with the values of func's variables, and the mask if there is one, in params."""
        variables, held, masks = params
        if not self._is_layer:
            return self.func(t, y)
        takes = inspect.signature(self.func.call).parameters
        known = {}
        if any(masks) and "mask" in takes:
            known["mask"] = keras.tree.pack_sequence_as(y, [mask[0] if mask else None for mask in masks])
        return self.func.stateless_call(variables, held, *self._arguments(t, y), **known)[0]

    def call(self, y: Any, mask: Any = None) -> Any:
        variables = [variable.value for variable in self.func.trainable_variables] if self._is_layer else []
        held = [variable.value for variable in self.func.non_trainable_variables] if self._is_layer else []
        # The gradient passes here once the reverse solve is over.
        if variables:
            variables = [self._counting_backwards(tf.convert_to_tensor(variables[0])), *variables[1:]]
        else:
            y = keras.tree.map_structure(self._counting_backwards, y)
        # Empty where there is none: parameters are tensors.
        params = (variables, held, [() if one is None else (one,) for one in keras.tree.flatten(mask)])
        ys = odeint(self._dynamics.value, y, self.t, params, **self._means.value)
        self.nfe_forward.update_state(self._taken(keras.tree.flatten(ys)[0], "forward"))
        if not self.return_sequences:
            return keras.tree.map_structure(lambda states: states[-1], ys)
        return keras.tree.map_structure(
            lambda states: tf.transpose(states, [1, 0, *range(2, len(states.shape))]) if len(states.shape) > 1 else states, ys
        )

    def _counting_backwards(self, x):
        @tf.custom_gradient
        def counting(x):
            def backward(bar):
                self.nfe_backward.update_state(self._taken(bar, "backward"))
                return bar

            return tf.identity(x), backward

        return counting(x)

    def _taken(self, after, way):
        """How many evaluations there were one way since the last time, as a tensor, once `after` is known."""
        counted = self._dynamics.value
        return tf.ensure_shape(tf.numpy_function(lambda _: np.float32(counted.take(way)), [after], tf.float32), ())

    def compute_output_shape(self, input_shape: Any) -> Any:
        def with_times(shape):
            shape = tuple(shape)
            return (shape[0], len(self.t), *shape[1:]) if self.return_sequences else shape

        return _map_shapes(with_times, input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The input's mask; none for a sequence of states, whose axes it does not have."""
        return None if self.return_sequences else previous_mask

    def get_config(self) -> dict:
        serialized = {
            name: keras.saving.serialize_keras_object(value) for name, value in {"func": self.func, **self._means.value}.items()
        }
        return {**super().get_config(), "t": self.t, "return_sequences": self.return_sequences, **serialized}

    @classmethod
    def from_config(cls, config: dict) -> ODEBlock:
        serialized = [name for name in ("func", *MEANS) if name in config]
        return cls(**{**config, **{name: keras.saving.deserialize_keras_object(config[name]) for name in serialized}})


def _check_means(times, means):
    """What odeint would refuse, but for the shapes of tolerances, which are those of states to come."""
    for name in TOLERANCES:
        if means[name] is not None or name in ("rtol", "atol"):
            for part in keras.tree.flatten(means[name]):
                checked_tolerance(part, Layout.of([np.asarray(part)]), name)
    stand_ins = {"rtol": 1e-3, "atol": 1e-3, "adjoint_rtol": None, "adjoint_atol": None}
    check(lambda t, y, params: -y, np.ones(1), times, (), **{**means, **stand_ins})


def _map_shapes(function, shape):
    """function of each shape in a nesting of them."""
    if isinstance(shape, dict):
        return {key: _map_shapes(function, part) for key, part in shape.items()}
    if isinstance(shape, (list, tuple)) and any(isinstance(part, (list, tuple, dict)) for part in shape):
        return type(shape)(_map_shapes(function, part) for part in shape)
    return function(shape)


def _updated_in_training(func, arguments):
    """Paths of the variables that func, a layer, changes when it is called in training."""
    with keras.StatelessScope() as scope:
        _Around(func)(arguments, training=True)
    after = [(variable, scope.get_current_value(variable)) for variable in func.non_trainable_variables]
    return [variable.path for variable, new in after if new is not None and not np.array_equal(variable.value, new)]


class _Around(keras.layers.Layer):
    """A layer around func that names `training`, which the layers in func then know, whether or not func names it."""

    def __init__(self, func):
        super().__init__(dtype=func.dtype_policy)
        self.func = func
        self.built = True

    def call(self, arguments, training=None):
        return self.func(*arguments)


class _Held:
    """A value that Keras does not look into."""

    def __init__(self, value):
        self.value = value


class _Counted(TensorFlowDynamics):
    """Dynamics that count their evaluations, forwards and in reverse solves."""

    def __init__(self, func, dtype):
        super().__init__(func, dtype)
        self.counts = {"forward": 0, "backward": 0}

    def take(self, way):
        """The count one way, which begins anew; a reverse sweep also evaluates f itself, at the output times."""
        ways = ("forward", "backward") if way == "backward" else ("forward",)
        count = sum(self.counts[way] for way in ways)
        self.counts.update(dict.fromkeys(ways, 0))
        return count

    def bind(self, layout, structure, leaves):
        return self._counting("forward", super().bind(layout, structure, leaves))

    def _counting(self, way, rhs):
        def counted(t, z):
            self.counts[way] += 1
            return rhs(t, z)

        return counted

    def augmented(self, layout, structure):
        augmented, count = super().augmented(layout, structure), self._counting

        class Backward(type(augmented)):
            def bind(self, layout, structure, leaves):
                return count("backward", super().bind(layout, structure, leaves))

        counted = Backward.__new__(Backward)
        counted.__dict__ = augmented.__dict__
        return counted

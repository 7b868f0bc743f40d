"""Augmented Neural ODEs (Dupont, Doucet and Teh 2019): vectors through an ODE, a linear map at its end, and the ResNet beside it.

The paper's models have no layers before the ODE. A point x in R^d, with p zeros appended (p = 0 is the Neural ODE, p > 0 the
augmented one), is carried over t in [0, 1] by a field of d + p dimensions, and read by one linear layer. As in the authors'
public code, time is one more input of the field's first layer, and all layers begin with PyTorch's default weights.

Parameters are nested dicts of float32 arrays: {"field": ..., "head": ...}. The convolutional field is in `augmented_images`.
"""

import autograd.numpy as anp
import numpy as np
import tensorflow as tf
from autograd import make_vjp

from original_repro.layers import dense, init_dense
from original_repro.supervised import Classifier, GraphClassifier, cross_entropy
from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive

# The paper's: dopri5 at 1e-3, and the public code's limit of steps.
METHOD, TOLERANCE, MOST_STEPS = "dopri5", 1e-3, 1000
READOUTS = ("all", "own", "none")
ACTIVATIONS = {"relu": tf.nn.relu, "softplus": tf.nn.softplus}


# The field


def init_time_dense(rng, features_in, features_out):
    """Parameters of `time_dense`: those of `layers.dense` and time_weight (features_out,); the fan-in counts t."""
    layer = init_dense(rng, features_in + 1, features_out)
    return {"weight": layer["weight"][:-1], "time_weight": layer["weight"][-1], "bias": layer["bias"]}


def time_dense(params, t, x):
    """Affine map of x (points, features_in) and the scalar t, which is added with the bias; without a time_weight, of x alone."""
    if "time_weight" not in params:
        return dense(params, x)
    return tf.matmul(x, params["weight"]) + bias_at(params, t, x.dtype)


def bias_at(params, t, dtype):
    """What `time_dense` adds at the scalar t: (features_out,)."""
    return params["bias"] + tf.cast(t, dtype) * params["time_weight"] if "time_weight" in params else params["bias"]


def init_mlp_field(rng, dim, hidden, *, time=True):
    """Parameters of `mlp_field` on `dim` dimensions with two hidden layers of `hidden`; `time`: whether it depends on t."""
    check_counts(dim=dim, hidden=hidden)
    return {
        "hidden1": (init_time_dense if time else init_dense)(rng, dim, hidden),
        "hidden2": init_dense(rng, hidden, hidden),
        "output": init_dense(rng, hidden, dim),
    }


def mlp_field(t, z, params, *, activation="relu"):
    """dz/dt of z (points, dim): two hidden layers with `activation`, "relu" or "softplus", and an affine one."""
    act = ACTIVATIONS[activation]
    h = act(time_dense(params["hidden1"], t, z))
    return dense(params["output"], act(dense(params["hidden2"], h)))


def init_vector_ode(rng, dim, hidden, *, extra=0, outputs=1, time=True):
    """Parameters of a `NeuralOde` with `mlp_field` in dim + extra dimensions, and a head of `outputs` (None: without a head)."""
    check_counts(dim=dim, hidden=hidden)
    check_extra(extra)
    params = {"field": init_mlp_field(rng, dim + extra, hidden, time=time)}
    return params if outputs is None else {**params, "head": init_dense(rng, dim + extra, outputs)}


def augment(x, extra):
    """x with `extra` zeros appended to its last axis, the channels: the state at t = 0. For autograd."""
    if extra == 0:
        return x
    return anp.concatenate([x, np.zeros((*anp.shape(x)[:-1], extra))], axis=-1)


# Losses: functions (outputs, targets) -> (mean loss, number of right answers)


def huber(outputs, targets):
    """Smooth L1 loss, d^2 / 2 where |d| < 1 and |d| - 1/2 elsewhere, and how many outputs have the sign of their target.

    outputs and targets (points, m). It is what the public code minimises where the paper says mean squared error.
    """
    error = tf.abs(outputs - targets)
    loss = tf.reduce_mean(tf.where(error < 1.0, 0.5 * error * error, error - 0.5))
    return loss, _same_sign(outputs, targets)


def squared_error(outputs, targets):
    """Mean squared error, and how many outputs have the sign of their target: outputs and targets (points, m)."""
    return tf.reduce_mean(tf.math.squared_difference(outputs, targets)), _same_sign(outputs, targets)


def _same_sign(outputs, targets):
    return tf.reduce_sum(tf.cast(tf.reduce_all(tf.sign(outputs) == tf.sign(targets), 1), outputs.dtype))


LOSSES = {"huber": huber, "squared_error": squared_error, "cross_entropy": cross_entropy}


# Models


class NeuralOde(Classifier):
    """Zeros appended, one ODESolve over t in [0, 1], a linear map: a Neural ODE with extra = 0, an augmented one with more.

    field: dz/dt as a TensorFlow function (t, z, params["field"]), z (points, ..., channels + extra).
    loss: "huber", "squared_error" or "cross_entropy".
    readout: "all", the linear map params["head"] of the whole final state, flattened; "own", of the data's own channels only;
        "none", those channels themselves, and no head.
    method, rtol, atol and further solver settings are those of `solvers_bridge.odeint`. A batch is solved as one ODE.
    adjoint_method: None is the adjoint by the same method, the paper's way with images; "discrete" backpropagates through the
        steps of the solver, its way with toy problems; there is no reverse solve then, and nfe_backward is 0.
    dtype, compiler: of the graphs, as of a TensorFlowDynamics. The object holds the compiled graphs; keep it.

    loss and evaluation are those of a Classifier, with "errors" the points whose sign, or class, is wrong. ValueError for a loss
    or a readout of another name. An ODE that cannot be solved raises SolverError.
    """

    def __init__(
        self,
        field,
        loss="huber",
        *,
        extra=0,
        readout="all",
        method=METHOD,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        adjoint_method=None,
        options=None,
        dtype="float32",
        device=None,
        compiler="graph",
        **solver_settings,
    ):
        _check_name("loss", loss, LOSSES)
        _check_name("readout", readout, READOUTS)
        check_extra(extra)
        self.field, self.extra, self.readout, self.dtype = field, extra, readout, dtype
        limit = {} if method in ("euler", "midpoint", "rk4") else {"max_num_steps": MOST_STEPS}
        self.solver = {
            "method": method,
            "rtol": rtol,
            "atol": atol,
            "adjoint_method": adjoint_method,
            "options": {**limit, **(options or {})},
            **solver_settings,
        }
        self.dynamics = TensorFlowDynamics(field, dtype, device, compiler)
        self.read = tensorflow_primitive(self._outputs, dtype, device)
        measure = LOSSES[loss]

        def read_loss(head, z, targets):
            return measure(self._outputs(head, z), targets)

        self.read_loss = tensorflow_primitive(read_loss, dtype, device)

        @tf.function
        def read_loss_and_gradients(head, z, targets):
            with tf.device(device), tf.GradientTape() as tape:
                tape.watch((head, z))
                loss, correct = read_loss(head, z, targets)
            return loss, correct, tape.gradient(loss, (head, z))

        self.read_loss_and_gradients = read_loss_and_gradients

    def states(self, params, x, times=(0.0, 1.0)):
        """States (T, points, ..., channels + extra) at `times`, from x with its zeros at times[0]; for autograd."""
        return odeint(self.dynamics, augment(x, self.extra), times, params["field"], **self.solver)

    def outputs(self, params, x):
        """What the model answers, (points, outputs), to x (points, ..., channels); for autograd."""
        return self.read(params.get("head", {}), self.states(params, x)[-1])

    def loss(self, params, x, targets):
        """(mean loss, number of right answers) of x (points, ..., channels) with their targets; for autograd."""
        return self.read_loss(params.get("head", {}), self.states(params, x)[-1], targets)

    def value_and_grad(self, params, x, targets):
        """As of a Classifier, by one graph for head, loss and their gradients: half the calls where the ODE is small."""
        with record_solves() as solves:
            to_field, z = make_vjp(lambda field: self.states({"field": field}, x)[-1])(params["field"])
            head = {name: np.asarray(array, self.dtype) for name, array in params.get("head", {}).items()}
            targets = targets if targets.dtype.kind in "iu" else np.asarray(targets, self.dtype)
            loss, correct, (head_bar, z_bar) = self.read_loss_and_gradients(head, np.asarray(z, self.dtype), targets)
            grads = {"field": to_field(z_bar.numpy().astype(z.dtype))}
        if head:
            grads["head"] = {name: bar.numpy().astype(params["head"][name].dtype) for name, bar in head_bar.items()}
        return self.metrics(loss, correct, len(targets), solves), grads

    def _outputs(self, head, z):
        """Tensor (points, outputs) of final states."""
        if self.readout != "all":
            z = z[..., : z.shape[-1] - self.extra]
        z = tf.reshape(z, (z.shape[0], -1))
        return z if self.readout == "none" else dense(head, z)


def init_residual_mlp(rng, dim, hidden, blocks, *, outputs=1):
    """Parameters of `residual_mlp`: `blocks` of dim -> hidden -> dim with weights of their own, and a linear head."""
    check_counts(dim=dim, hidden=hidden, blocks=blocks)
    return {
        "blocks": [{"hidden": init_dense(rng, dim, hidden), "output": init_dense(rng, hidden, dim)} for _ in range(blocks)],
        "head": init_dense(rng, dim, outputs),
    }


def residual_features(params, x):
    """States (blocks + 1, points, dim) of the ResNet: x + ReLU(W2 ReLU(W1 x)) block by block, so each residual is >= 0."""
    states = [x]
    for block in params["blocks"]:
        h = tf.nn.relu(dense(block["hidden"], states[-1]))
        states.append(states[-1] + tf.nn.relu(dense(block["output"], h)))
    return tf.stack(states)


def residual_mlp(params, x):
    """What the ResNet of the paper's toy problems answers, (points, outputs), to x (points, dim)."""
    return dense(params["head"], residual_features(params, x)[-1])


class ResidualMlp(GraphClassifier):
    """The ResNet baseline as one graph; parameters of `init_residual_mlp`, loss as of a `NeuralOde`."""

    def __init__(self, loss="huber", *, device=None):
        _check_name("loss", loss, LOSSES)
        measure = LOSSES[loss]
        super().__init__(lambda params, x, targets: measure(residual_mlp(params, x), targets), device)
        self.outputs = tensorflow_primitive(residual_mlp, "float32", device)


def _check_name(what, name, known):
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")


def check_extra(extra):
    if type(extra) is not int or extra < 0:
        raise ValueError(f"extra must be a whole number of dimensions from 0, got {extra!r}")


def check_counts(**counts):
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {count!r}")

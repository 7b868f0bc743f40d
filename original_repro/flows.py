"""Normalizing flows of section 4 of the paper: continuous ones through the bridge, and the planar ones they are compared with.

A flow carries points of a standard normal base to the data, and knows log densities (nats) on the way. Continuous flows solve the
state and its log density together (Theorem 1: d log p(z(t))/dt = -tr df/dz); their dynamics are TensorFlow functions
(t, z (points, d), params) -> (dz/dt (points, d), tr df/dz (points,)):

    planar_dynamics         M gated planar units, parameters from a hypernetwork of t, trace in closed form (equation 10, and
                            "Time-dependent dynamics")
    with_trace(f)           any f(t, z, params), trace by automatic differentiation, exact or by Hutchinson's estimator
    hamiltonian_dynamics    two halves that move each other, trace zero (appendix A.1)

Parameters are nested dicts of float32 arrays.
"""

import functools
import math

import autograd.numpy as anp
import numpy as np
import tensorflow as tf
from autograd import value_and_grad

from original_repro.layers import dense, init_dense
from original_repro.training import tree_map
from solvers_bridge import TensorFlowDynamics, odeint, record_solves

TRACES = ("exact", "gaussian", "rademacher")
INVERSION_STEPS = 60


# Continuous flows: dynamics


def init_planar_dynamics(rng, units, *, dim=2, width=32):
    """Parameters of `planar_dynamics` with `units` units in `dim` dimensions, from a hypernetwork of two layers of `width`."""
    _check_counts(units=units, dim=dim, width=width)
    return {
        "hidden1": init_dense(rng, 1, width),
        "hidden2": init_dense(rng, width, width),
        "output": init_dense(rng, width, units * (2 * dim + 2)),
    }


def planar_dynamics(t, z, params):
    """dz/dt = 1/M sum_n sigmoid(g_n) u_n tanh(w_n . z + b_n) and its trace, with w_n, u_n, g_n, b_n functions of t.

    The functions are a hypernetwork's, t -> tanh layer -> tanh layer -> affine; the gate sigmoid(g_n) is the paper's sigma_n(t).
    """
    dim = z.shape[1]
    hidden = tf.tanh(dense(params["hidden1"], tf.reshape(tf.cast(t, z.dtype), (1, 1))))
    output = dense(params["output"], tf.tanh(dense(params["hidden2"], hidden)))[0]
    units = output.shape[0] // (2 * dim + 2)
    w, u, gate, b = tf.split(output, [units * dim, units * dim, units, units])
    w, u = tf.reshape(w, (dim, units)), tf.reshape(u, (units, dim))
    gated = u * (tf.sigmoid(gate) / units)[:, None]
    h = tf.tanh(tf.matmul(z, w) + b)
    slopes = tf.reduce_sum(tf.transpose(w) * gated, 1)
    return tf.matmul(h, gated), tf.linalg.matvec(1.0 - h * h, slopes)


def with_trace(func, trace="exact"):
    """Dynamics with a trace from func(t, z (points, d), params) -> dz/dt alone, each point's depending on that point only.

    trace: "exact" takes d vector-Jacobian products; "gaussian" and "rademacher" one, e . (df/dz)^T e with noise e of that kind
    (Hutchinson's estimator). Its params are then a pair (func's, seed): noise is a function of the seed, an array of two whole
    floating-point numbers below 2^24 (see `noise_seed`), so that it is the same throughout a solve and its reverse solve.
    Raises ValueError for another trace.
    """
    if trace not in TRACES:
        raise ValueError(f"trace must be one of {', '.join(TRACES)}, got {trace!r}")
    if trace == "exact":
        return functools.partial(_exact_trace, func)

    def dynamics(t, z, params):
        params, seed = params
        return hutchinson_trace(func, t, z, params, _noise(trace, seed, z))

    return dynamics


def _exact_trace(func, t, z, params):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        f = func(t, z, params)
        columns = tf.unstack(f, axis=1)
    diagonal = [
        tape.gradient(column, z, unconnected_gradients=tf.UnconnectedGradients.ZERO)[:, i] for i, column in enumerate(columns)
    ]
    return f, tf.add_n(diagonal)


def hutchinson_trace(func, t, z, params, noise):
    """(func(t, z, params), noise . (df/dz)^T noise (points,)): an unbiased estimate of the trace where E[noise noise^T] = 1."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        f = func(t, z, params)
    product = tape.gradient(f, z, output_gradients=noise, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return f, tf.reduce_sum(product * noise, 1)


def noise_seed(rng):
    """A seed for the noise of `with_trace`, float32 (2,), from a np.random.Generator."""
    return rng.integers(0, 2**24, 2).astype(np.float32)


def _noise(kind, seed, z):
    seed = tf.cast(seed, tf.int32)
    if kind == "gaussian":
        return tf.random.stateless_normal(z.shape, seed, dtype=z.dtype, alg="philox")
    bits = tf.random.stateless_uniform(z.shape, seed, 0, 2, tf.int32, alg="philox")
    return tf.cast(2 * bits - 1, z.dtype)


def init_hamiltonian_dynamics(rng, *, dim=2, width=32):
    """Parameters of `hamiltonian_dynamics` in an even number of dimensions: two networks with a hidden layer of `width`."""
    _check_counts(dim=dim, width=width)
    if dim % 2:
        raise ValueError(f"dim must be even, to be halved, got {dim}")
    return {
        name: {"hidden": init_dense(rng, dim // 2 + 1, width), "output": init_dense(rng, width, dim // 2)}
        for name in ("first", "second")
    }


def hamiltonian_dynamics(t, z, params):
    """Each half of z moves by a network of the other half and of t, so that the trace is zero and volume is conserved."""
    first, second = tf.split(z, 2, axis=1)

    def velocity(params, half):
        with_time = tf.concat([half, tf.fill((half.shape[0], 1), tf.cast(t, z.dtype))], 1)
        return dense(params["output"], tf.tanh(dense(params["hidden"], with_time)))

    return tf.concat([velocity(params["first"], second), velocity(params["second"], first)], 1), tf.zeros_like(z[:, 0])


# Continuous flows


class ContinuousFlow:
    """z(times[0]) ~ N(0, I) carried to the data at times[1] by dynamics in the form of this module.

    method, rtol, atol and further solver settings are those of `solvers_bridge.odeint`; the defaults are the paper's for density
    estimation (section 6); compiler is that of TensorFlowDynamics. All points are solved as one ODE. The object holds the
    compiled graphs, one for each number of points; keep it. Arrays of points have shape (points, d); log densities are in nats,
    (points,), float64.
    """

    def __init__(
        self,
        dynamics,
        times=(0.0, 1.0),
        *,
        method="adams",
        rtol=1e-5,
        atol=1e-5,
        dtype="float32",
        device=None,
        compiler="graph",
        **solver,
    ):
        times = tuple(float(time) for time in times)
        if len(times) != 2 or not all(map(math.isfinite, times)) or times[0] == times[1]:
            raise ValueError(f"times must be two different times, of the base and of the data, got {times}")
        self.times = times
        self.solver = {"method": method, "rtol": rtol, "atol": atol, **solver}
        self.dynamics = TensorFlowDynamics(functools.partial(_with_log_density, dynamics), dtype, device, compiler)

    def solve(self, params, z, times):
        """(states (T, points, d), changes of log density along them (T, points)) at `times` from z at times[0], either way."""
        z = _checked_points(z, "z")
        y = odeint(self.dynamics, anp.concatenate([z, np.zeros((len(z), 1))], 1), times, params, **self.solver)
        return y[:, :, :-1], y[:, :, -1]

    def sample(self, params, base):
        """(x, log density of x) for points of the base. Differentiable by autograd."""
        z, change = self.solve(params, _checked_points(base, "base"), self.times)
        return z[-1], log_normal(base) + change[-1]

    def log_density(self, params, x):
        """Log density at any points x, solved from the data to the base. Differentiable by autograd."""
        z, change = self.solve(params, _checked_points(x, "x"), self.times[::-1])
        return log_normal(z[-1]) - change[-1]

    def kl_and_grad(self, params, base, energy):
        """(metrics, gradient) of `free_energy` by a sample, for training.fit: energy(x) -> (points,) in autograd.numpy."""

        def loss(params):
            x, log_q = self.sample(params, base)
            return anp.mean(log_q + energy(x))

        return _counted(loss, params)

    def nll_and_grad(self, params, x):
        """(metrics, gradient) of the mean negative log density at x, for training.fit."""
        return _counted(lambda params: -anp.mean(self.log_density(params, x)), params)


def _with_log_density(dynamics, t, y, params):
    dz, trace = dynamics(t, y[:, :-1], params)
    return tf.concat([dz, -trace[:, None]], 1)


def _counted(loss, params):
    with record_solves() as solves:
        value, grads = value_and_grad(loss)(params)
    return {
        "loss": float(value),
        **{f"nfe_{way}": sum(solve.nfe for solve in solves if solve.direction == way) for way in ("forward", "backward")},
    }, grads


# Planar flows


def init_planar_flow(rng, layers, *, dim=2):
    """Parameters of `planar_flow`: {"w": (layers, dim), "u": (layers, dim), "b": (layers,)}, float32, near the identity."""
    _check_counts(layers=layers, dim=dim)
    return {
        "w": rng.normal(size=(layers, dim)).astype(np.float32),
        "u": (0.1 * rng.normal(size=(layers, dim))).astype(np.float32),
        "b": (0.1 * rng.normal(size=layers)).astype(np.float32),
    }


def planar_flow(params, z):
    """K layers z + u^ tanh(w . z + b) of Rezende and Mohamed (2015): z (points, d) -> (z_K, log |det| (points,)), tensors.

    u^ = u + (m(w . u) - w . u) w / |w|^2 with m(x) = softplus(x) - 1, so that w . u^ > -1 and each layer is invertible (their
    appendix A.1).
    """
    # Coordinates apart: all that depends on the points is then elementwise, and XLA makes a few loops of it.
    coordinates = tf.unstack(z, axis=1)
    u, products = _invertible(params, tf.reduce_sum, tf.math.softplus)
    log_det = tf.zeros_like(coordinates[0])
    for w_k, u_k, b_k, product in zip(*(tf.unstack(array) for array in (params["w"], u, params["b"], products))):
        h = tf.tanh(b_k + tf.add_n([w_k[i] * z_i for i, z_i in enumerate(coordinates)]))
        coordinates = [z_i + u_k[i] * h for i, z_i in enumerate(coordinates)]
        log_det += tf.math.log1p(product * (1.0 - h * h))
    return tf.stack(coordinates, 1), log_det


def invert_planar_flow(params, z):
    """Inverse of `planar_flow` in float64: array z_K (points, d) -> (z (points, d), log |det| of this inverse (points,)).

    Along w a layer is the increasing function a + w . u^ tanh(a) of a = w . z + b, whose inverse is found by bisection to the
    last bit or so; the rest is a shift.
    """
    params, z = tree_map(lambda array: np.asarray(array, np.float64), params), np.asarray(z, np.float64)
    u, products = _invertible(params, np.sum, lambda x: np.logaddexp(x, 0.0))
    log_det = np.zeros(len(z))
    for w_k, u_k, b_k, product in list(zip(params["w"], u, params["b"], products))[::-1]:
        target = z @ w_k + b_k
        low, high = target - abs(product), target + abs(product)
        for _ in range(INVERSION_STEPS):
            middle = 0.5 * (low + high)
            above = middle + product * np.tanh(middle) > target
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        h = np.tanh(0.5 * (low + high))
        z = z - u_k * h[:, None]
        log_det -= np.log1p(product * (1.0 - h * h))
    return z, log_det


def _invertible(params, total, softplus):
    """(u^ (K, d), w . u^ (K,)) by the given library's sum and softplus."""
    w, u = params["w"], params["u"]
    raw = total(w * u, 1)
    product = softplus(raw) - 1.0
    return u + ((product - raw) / total(w * w, 1))[:, None] * w, product


class PlanarFlow:
    """A planar flow between a standard normal base and the data; `init_planar_flow` makes its parameters.

    runs: the direction of `planar_flow`. "base_to_data" is the one to sample from, and to fit to a known density;
    "data_to_base" the one to evaluate at given points, and to fit to data.
    The other way round either is inverted numerically, without a gradient.
    Points (count, d), log densities in nats (count,).
    """

    def __init__(self, runs):
        if runs not in ("base_to_data", "data_to_base"):
            raise ValueError(f"runs must be 'base_to_data' or 'data_to_base', got {runs!r}")
        self.forward = runs == "base_to_data"
        self._planar_flow = tf.function(planar_flow)

    def sample(self, params, base):
        """(x, log density of x) for points of the base."""
        base = _checked_points(base, "base")
        x, log_det = self._layers(params, base) if self.forward else invert_planar_flow(params, base)
        return x, log_normal(base) - log_det

    def log_density(self, params, x):
        """Log density at any points x."""
        x = _checked_points(x, "x")
        z, log_det = invert_planar_flow(params, x) if self.forward else self._layers(params, x)
        return log_normal(z) + log_det

    def _layers(self, params, z):
        params = tree_map(lambda array: tf.constant(array, tf.float32), params)
        return [np.asarray(tensor, np.float64) for tensor in self._planar_flow(params, tf.constant(z, tf.float32))]


def planar_kl_loss(params, base, energy):
    """Tensor: mean of log q(x) + energy(x) over the images x of `base` (points, d) under `planar_flow`."""
    x, log_det = planar_flow(params, base)
    return tf.reduce_mean(_log_normal_tensor(base) - log_det + energy(x))


def planar_nll_loss(params, x):
    """Tensor: mean negative log density at x (points, d), `planar_flow` being the way from the data to the base."""
    z, log_det = planar_flow(params, x)
    return -tf.reduce_mean(_log_normal_tensor(z) + log_det)


# The base, checks


def log_normal(z):
    """Log density of N(0, I) at z (points, d), (points,); for autograd."""
    return -0.5 * anp.sum(z**2, axis=1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def _log_normal_tensor(z):
    return -0.5 * tf.reduce_sum(z**2, 1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def _checked_points(z, name):
    shape = anp.shape(z)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must have shape (points, d), got {shape}")
    return z


def _check_counts(**counts):
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {count!r}")

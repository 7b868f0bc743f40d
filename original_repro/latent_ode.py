"""Latent ODEs for irregular time series (section 5 of the paper), recurrent baselines, and a Poisson-process likelihood.

A recurrent network reads a series backwards in time and gives q(z0) = N(mean, deviation²); z(t) solves dz/dt = f(z) from z0,
and a decoder gives the mean of the Gaussian likelihood of the value at t. Training maximises the evidence lower bound (ELBO)
with p(z0) = N(0, 1) by reparameterisation (Kingma and Welling 2014). The layer sizes are the paper's: 25 recurrent units, 4
latent dimensions, 20 hidden units in f and in the decoder. Chosen where the paper is silent: tanh in the recurrent network,
smooth ELUs elsewhere, one learned standard deviation of the observations, and that the network reads with each value the time
since the observation before it (for the first one, since t0), without which irregular times would be lost.

Series of different lengths form one batch: times (N, n), values (N, n, D) and mask (N, n), 1 where there is an observation and
0 where there is padding. A batch is solved as one ODE of N * 4 unknowns (section 6) on the union of all its times, from which
each trajectory takes its own. This costs no evaluations on the way forward, where the solver interpolates, but the reverse
sweep restarts at every time of the union, whether a trajectory has an observation there or not: T restarts for a union of T
times, where a single trajectory would have n.
"""

import copy
import functools
import math

import autograd.numpy as anp
import numpy as np
import tensorflow as tf
from autograd import value_and_grad
from autograd.tracer import getval

from original_repro.attention import attention, init_attention
from original_repro.layers import dense, init_dense
from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive

ENCODERS = ("rnn", "attention")
LOG_TWO_PI = math.log(2 * math.pi)


def init_latent_ode(rng, *, observed=2, latent=4, units=25, hidden=20, noise=0.3, encoder="rnn"):
    """Parameters of a LatentOde, float32; `rng`: np.random.Generator. `noise`: the first guess of the observations' deviation.

    encoder: "rnn", the paper's recognition network, or "attention", see `attend`.
    """
    _check_encoder(encoder)
    recognition = (
        {"cell": init_dense(rng, observed + 1 + units, units), "output": init_dense(rng, units, 2 * latent)}
        if encoder == "rnn"
        else init_attention(rng, observed + 1, units, 2 * latent)
    )
    return {
        "recognition": recognition,
        "dynamics": init_mlp(rng, latent, hidden, latent),
        "decoder": init_mlp(rng, latent, hidden, observed),
        "log_noise": np.array(math.log(noise), np.float32),
    }


def init_rnn(rng, *, observed=2, units=25, time_gaps=False, noise=0.3):
    """Parameters of an Rnn, float32; `time_gaps`: whether it is fed the time to the next observation."""
    return {
        "cell": init_dense(rng, observed + int(time_gaps) + units, units),
        "output": init_dense(rng, units, observed),
        "log_noise": np.array(math.log(noise), np.float32),
    }


def init_mlp(rng, features_in, hidden, features_out):
    """Parameters of `mlp`, float32."""
    return {"hidden": init_dense(rng, features_in, hidden), "output": init_dense(rng, hidden, features_out)}


def mlp(params, x):
    """One hidden layer of `smooth_linear` units: x (..., features_in) -> (..., features_out)."""
    flat = tf.reshape(x, (-1, x.shape[-1]))
    y = dense(params["output"], smooth_linear(dense(params["hidden"], flat)))
    return tf.reshape(y, (*x.shape[:-1], y.shape[-1]))


def smooth_linear(x):
    """softplus(3 x + 1) / 3, less its value at 0: bounded below, linear above, as an exponential linear unit (ELU), but smooth.

    An ELU's second derivative jumps, which costs VODE two to three times the evaluations at the paper's tolerance.
    """
    return (tf.math.softplus(3 * x + 1) - math.log1p(math.exp(1))) / 3


def rnn_cell(params, x, h):
    """The next hidden state (N, units) of a recurrent network at input x (N, features), hidden state h (N, units)."""
    return tf.tanh(dense(params, tf.concat([x, h], 1)))


def recognise(params, inputs, mask):
    """(mean, log_deviation), each (N, latent), of q(z0): inputs (N, n, features) read from the last to the first.

    Where mask (N, n) is 0 the hidden state stays what it was.
    """
    count, length = mask.shape
    # A loop that took slices of the arrays would, on the way back, add up an array of their full size at each step.
    inputs, mask = (_in_turn(array) for array in (inputs, mask[..., None]))
    units = params["cell"]["bias"].shape[0]

    def read(i, h):
        return i - 1, h + mask.read(i) * (rnn_cell(params["cell"], inputs.read(i), h) - h)

    _, h = tf.while_loop(
        lambda i, h: i >= 0, read, [length - 1, tf.zeros((count, units), params["cell"]["bias"].dtype)], maximum_iterations=length
    )
    return tf.split(dense(params["output"], h), 2, axis=1)


def attend(params, inputs, mask):
    """(mean, log_deviation), each (N, latent), of q(z0), from inputs (N, n, features) in any order: `attention.attention`.

    The inputs have the time since the start in the place of that since the observation before. Where mask (N, n) is 0 nothing is
    attended to.
    """
    return tf.split(attention(params, inputs, mask), 2, axis=1)


def _check_encoder(encoder):
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")


def _in_turn(array):
    """A TensorArray of the entries of array (N, n, ...) along its second axis."""
    array = tf.stop_gradient(tf.transpose(array, (1, 0, 2)))
    return tf.TensorArray(array.dtype, len(array), clear_after_read=False, element_shape=array.shape[1:]).unstack(array)


def kl_to_standard_normal(mean, log_deviation):
    """KL(N(mean, deviation²) | N(0, 1)) in nats, summed over the last axis."""
    return tf.reduce_sum(0.5 * (tf.exp(2 * log_deviation) + mean**2 - 1) - log_deviation, axis=-1)


def gaussian_log_likelihood(values, means, log_noise, mask):
    """Log-density (N,) of values (N, n, D) under N(means, noise²), each weighed by mask (N, n), summed over a series."""
    squares = tf.reduce_sum(((values - means) * tf.exp(-log_noise)) ** 2, axis=-1)
    return tf.reduce_sum(-mask * (0.5 * squares + values.shape[-1] * (log_noise + 0.5 * LOG_TWO_PI)), axis=-1)


def union_grid(start, *times):
    """(grid, indices): the sorted union (T,) of start and all times, and for each array of times where in grid each of it lies.

    Raises ValueError for a time before start.
    """
    earliest = min(array.min() for array in times)
    if earliest < start:
        raise ValueError(f"times must not come before start = {start}, got {earliest}")
    grid, where = np.unique(np.concatenate([[start], *(np.ravel(array) for array in times)]), return_inverse=True)
    parts = np.split(where[1:], np.cumsum([array.size for array in times])[:-1])
    return grid, [part.reshape(array.shape) for part, array in zip(parts, times)]


def gaps_since(start, times, mask):
    """Time (N, n) from the observation before each entry of a series, from start where there was none."""
    last_seen = np.maximum.accumulate(np.where(mask > 0, times, start), axis=1)
    return times - np.concatenate([np.full((len(times), 1), start), last_seen[:, :-1]], axis=1)


def weights_of_few_times(times, mask, grid, count, rng):
    """Weights (N, n) under which only observations at `count` of the grid's times, drawn at random, are in the log-likelihood.

    They weigh len(grid) / count, so that the expectation is the log-likelihood of all observations at the grid's times, at fewer
    restarts of the reverse sweep.
    """
    chosen = rng.choice(grid, count, replace=False)
    return mask * np.isin(times, chosen) * (len(grid) / count)


def at_own_times(states, indices):
    """states (T, N, d) on a union grid -> (N, n, d), each trajectory at its own indices (N, n)."""
    return states[indices, np.arange(len(indices))[:, None]]


class LatentOde:
    """A latent ODE as functions of the parameters of `init_latent_ode`; keep the object, which holds the compiled graphs.

    start: t0, at which q(z0) stands and the solves begin. method, rtol, atol and further solver settings are those of
    `solvers_bridge.odeint`, the tolerance by default the paper's for time series, which asks for dynamics in float64: a graph in
    float32 rounds at 1e-7. dtype: of the networks around the ODE; dynamics_dtype, compiler: of f, as of a TensorFlowDynamics.
    encoder: as of `init_latent_ode`.
    """

    def __init__(
        self,
        *,
        start=0.0,
        method="adams",
        rtol=1.5e-8,
        atol=1.5e-8,
        dtype="float32",
        dynamics_dtype="float64",
        encoder="rnn",
        compiler="graph",
        **solver_settings,
    ):
        _check_encoder(encoder)
        self.start, self.encoder = float(start), encoder
        network = recognise if encoder == "rnn" else attend
        self.solver = {"method": method, "rtol": rtol, "atol": atol, **solver_settings}
        self.dynamics = TensorFlowDynamics(lambda t, z, params: mlp(params, z), dynamics_dtype, compiler=compiler)
        self.decoder = tensorflow_primitive(mlp, dtype)
        self.recognise = tensorflow_primitive(network, dtype, compiled=True)
        self.sample = tensorflow_primitive(functools.partial(_sampled_posterior, network), dtype, compiled=True)
        self.data_term = tensorflow_primitive(_data_term, dtype, compiled=True)

    def with_solver(self, **settings):
        """The same network, sharing its graphs, with other settings of `solvers_bridge.odeint` on top of its own."""
        other = copy.copy(self)
        other.solver = {**self.solver, **settings}
        return other

    def elbo(self, params, times, values, mask, draws, weights=None):
        """The evidence lower bound of each series, and what it is made of, for draws (N, latent) from N(0, 1).

        times (N, n), values (N, n, D), mask (N, n). weights (N, n): of the observations in the log-likelihood, by default mask;
        the solve has no output where all are zero, see `weights_of_few_times`. Returns (ELBO (N,), {"log_likelihood": (N,),
        "kl": (N,)}), in nats.
        """
        weights = mask if weights is None else weights
        grid, (indices,) = union_grid(self.start, np.where(weights > 0, times, self.start))
        z0, kl = self.sampled(params, times, values, mask, draws)
        states = at_own_times(self.trajectories(params, z0, grid), indices)
        log_likelihood = self.data_likelihood(params, states, values, weights)
        return log_likelihood - kl, {"log_likelihood": log_likelihood, "kl": kl}

    def sampled(self, params, times, values, mask, draws):
        """z0 (N, latent) = mean + deviation * draws from q(z0), and KL(q(z0) | N(0, 1)) (N,)."""
        return self.sample(params["recognition"], self._inputs(times, _seen(values, mask), mask), mask, draws)

    def data_likelihood(self, params, states, values, weights):
        """Log-likelihood (N,) of values (N, n, D) at latent states (N, n, latent), each by its weight (N, n), 0 for padding."""
        return self.data_term(params["decoder"], params["log_noise"], states, _seen(values, weights), weights)

    def value_and_grad(self, params, times, values, mask, draws, weights=None):
        """(metrics, gradient) for `training.fit`: loss, the mean negative ELBO of a series, its parts, and evaluations."""
        return loss_and_gradient(lambda params: self.elbo(params, times, values, mask, draws, weights), params)

    def posterior(self, params, times, values, mask):
        """(mean, deviation) of q(z0), each (N, latent)."""
        mean, log_deviation = self.recognise(params["recognition"], self._inputs(times, _seen(values, mask), mask), mask)
        return mean, np.exp(log_deviation)

    def trajectories(self, params, z0, times):
        """Latent states (len(times), N, latent) at increasing times from z0 (N, latent) at the first of them."""
        return odeint(self.dynamics, z0, times, params["dynamics"], **self.solver)

    def decode(self, params, states):
        """Means (..., D) of the values, from latent states (..., latent)."""
        return self.decoder(params["decoder"], states)

    def generate(self, params, z0, times):
        """Means (N, len(times), D) of the values at arbitrary increasing times, not before start, from z0 (N, latent) at start.

        From draws of N(0, 1) for z0 this is generation, from a posterior mean reconstruction and extrapolation.
        """
        grid, (indices,) = union_grid(self.start, np.asarray(times, np.float64))
        return np.swapaxes(self.decode(params, self.trajectories(params, z0, grid)[indices]), 0, 1)

    def impute(self, params, times, values, mask):
        """values (N, n, D), with those where mask (N, n) is 0 replaced by what the others let expect at their times."""
        z0, _ = self.posterior(params, times, values, mask)
        grid, (indices,) = union_grid(self.start, times)
        means = self.decode(params, at_own_times(self.trajectories(params, z0, grid), indices))
        return np.where(mask[..., None] > 0, values, means)

    def predictive(self, params, times, values, mask, further_times, rng, samples=100):
        """Mean and standard deviation, each (N, len(further_times), D), of values at any times not before start.

        Over draws of q(z0), with the observations' noise: the band in which observations are expected.
        """
        mean, deviation = self.posterior(params, times, values, mask)
        draws = mean + deviation * rng.normal(size=(samples, *mean.shape))
        means = self.generate(params, draws.reshape(-1, mean.shape[1]), further_times)
        means = means.reshape(samples, len(mean), *means.shape[1:])
        return means.mean(0), np.sqrt(means.var(0) + np.exp(2 * params["log_noise"]))

    def _inputs(self, times, values, mask):
        since = gaps_since(self.start, times, mask) if self.encoder == "rnn" else times - self.start
        return np.concatenate([values, since[..., None]], axis=-1)


def _seen(values, mask):
    """values with zeros for those that are not there, which may be NaN."""
    return np.where(mask[..., None] > 0, values, 0.0)


def _sampled_posterior(network, params, inputs, mask, draws):
    """z0 (N, latent) drawn from q(z0), and the KL divergence (N,) of q from N(0, 1); network: what recognises q."""
    mean, log_deviation = network(params, inputs, mask)
    return mean + tf.exp(log_deviation) * draws, kl_to_standard_normal(mean, log_deviation)


def _data_term(decoder, log_noise, states, values, mask):
    """Log-likelihood (N,) of values (N, n, D) at latent states (N, n, latent)."""
    return gaussian_log_likelihood(values, mlp(decoder, states), log_noise, mask)


def loss_and_gradient(elbo, params):
    """(metrics, gradient) of the mean negative ELBO: elbo(params) -> (ELBO (N,), dict of its parts (N,)); evaluations counted."""
    parts = {}

    def loss(params):
        bound, made_of = elbo(params)
        parts.update({name: float(np.mean(getval(part))) for name, part in made_of.items()})
        return -anp.mean(bound)

    with record_solves() as solves:
        value, gradient = value_and_grad(loss)(params)
    return {
        "loss": float(value),
        **parts,
        **{f"nfe_{way}": sum(solve.nfe for solve in solves if solve.direction == way) for way in ("forward", "backward")},
    }, gradient


class Rnn:
    """The baseline: a recurrent network that predicts the next observation, trained on the Gaussian negative log-likelihood.

    time_gaps: whether each observation comes with the time to the next one. If not, the network knows nothing of time. After the
    last observation either kind predicts in steps of `mean_gap`, the average of those it was trained on, and what it predicts at
    other times is interpolated linearly between them.
    Functions of the parameters of `init_rnn`; keep the object, which holds the compiled graph. Padding comes last in a series.
    """

    def __init__(self, *, time_gaps, mean_gap, dtype="float32"):
        self.time_gaps, self.mean_gap = time_gaps, float(mean_gap)
        self.dtype = tf.as_dtype(dtype)

        @tf.function(jit_compile=True)
        def graph(params, inputs, targets, mask):
            with tf.GradientTape() as tape:
                tape.watch(params)
                loss = tf.reduce_mean(_next_step_loss(params, inputs, targets, mask))
            return loss, tape.gradient(loss, params)

        self.graph = graph

    def value_and_grad(self, params, times, values, mask):
        """(metrics, gradient) for `training.fit`: the mean negative log-likelihood of a series, without its first value.

        times (N, n), values (N, n, D), mask (N, n).
        """
        params, inputs, targets, mask = tf.nest.map_structure(
            lambda array: tf.constant(array, self.dtype),
            (params, self._inputs(values[:, :-1], np.diff(times, axis=1)), values[:, 1:], mask[:, 1:]),
        )
        loss, gradient = self.graph(params, inputs, targets, mask)
        return {"loss": float(loss)}, tf.nest.map_structure(lambda tensor: tensor.numpy(), gradient)

    def predict_next(self, params, times, values):
        """Each value of series but the first, (N, n - 1, D), predicted from those before it; no padding here."""
        return self._read(params, values[:, :-1], np.diff(times, axis=1))

    def predict(self, params, times, values, further_times):
        """Values (N, len(further_times), D) after the last observation, by feeding predictions back; no padding here."""
        last = times[:, -1]
        steps = math.ceil((further_times[-1] - last.min()) / self.mean_gap)
        at = last[:, None] + self.mean_gap * np.arange(1, steps + 1)
        predictions = self._read(params, values, np.diff(np.concatenate([times, at], axis=1), axis=1))[:, values.shape[1] - 1 :]
        nodes, known = np.concatenate([last[:, None], at], 1), np.concatenate([values[:, -1:], predictions], 1)
        return np.stack([[np.interp(further_times, t, x) for x in series.T] for t, series in zip(nodes, known)]).swapaxes(1, 2)

    def _read(self, params, values, gaps):
        """Predictions (N, m, D), each for the time that is gaps (N, m) after the one before; beyond values they are fed back."""
        h, predictions = tf.zeros((len(gaps), params["cell"]["bias"].shape[0]), self.dtype), []
        for i in range(gaps.shape[1]):
            x = values[:, i] if i < values.shape[1] else predictions[-1]
            h = rnn_cell(params["cell"], tf.constant(self._inputs(x, gaps[:, i]), self.dtype), h)
            predictions.append(dense(params["output"], h).numpy())
        return np.stack(predictions, axis=1)

    def _inputs(self, values, gaps):
        return np.concatenate([values, gaps[..., None]], axis=-1) if self.time_gaps else values


def _next_step_loss(params, inputs, targets, mask):
    """Negative log-likelihood (N,) of targets (N, n, D), each predicted from the inputs (N, n, features) up to its place."""
    inputs, targets, mask = tf.transpose(inputs, (1, 0, 2)), tf.transpose(targets, (1, 0, 2)), tf.transpose(mask)
    length, count = mask.shape
    units = params["cell"]["bias"].shape[0]

    def read(i, h, total):
        h = rnn_cell(params["cell"], inputs[i], h)
        means = dense(params["output"], h)
        one = gaussian_log_likelihood(targets[i][:, None], means[:, None], params["log_noise"], mask[i][:, None])
        return i + 1, h, total - one

    start = [0, tf.zeros((count, units), inputs.dtype), tf.zeros(count, inputs.dtype)]
    return tf.while_loop(lambda i, h, total: i < length, read, start, maximum_iterations=length)[2]

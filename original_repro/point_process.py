"""Poisson-process likelihoods through latent trajectories (section 5 and Figure 7 of the paper).

Events at times t_1 ... t_k of an interval have the log-likelihood sum_i log lambda(z(t_i)) - integral of lambda(z(t)) dt, where z
solves dz/dt = f(z) and lambda(z) > 0 is a network. The integral is one more unknown of the same ODE, so that one call of odeint
over the union of the events' times gives trajectory and integral together. Events come as arrays (N, k) padded to the
same length, with a mask (N, k).
"""

import autograd.numpy as anp
import numpy as np
import tensorflow as tf

from original_repro.latent_ode import LatentOde, at_own_times, init_latent_ode, init_mlp, loss_and_gradient, mlp, union_grid
from solvers_bridge import TensorFlowDynamics, odeint, tensorflow_primitive


def init_point_process(rng, *, latent=4, hidden=20):
    """Parameters of a PointProcess, float32: z0, the same for all sequences, f and lambda; `rng`: np.random.Generator."""
    return {
        "z0": rng.normal(size=latent).astype(np.float32),
        "dynamics": init_mlp(rng, latent, hidden, latent),
        "intensity": init_mlp(rng, latent, hidden, 1),
    }


def init_latent_ode_with_events(rng, latent_ode=None, *, latent=4, hidden=20):
    """Parameters of a LatentOdeWithEvents: those of a latent ODE (default: of `init_latent_ode`) and "intensity"."""
    latent_ode = latent_ode or init_latent_ode(rng, latent=latent, hidden=hidden)
    return {**latent_ode, "intensity": init_mlp(rng, latent, hidden, 1)}


def log_intensity(params, z):
    """log lambda (...,) at latent states z (..., latent); lambda is the softplus of a network with one hidden layer."""
    return tf.math.log(tf.math.softplus(mlp(params, z)[..., 0]))


def dynamics_with_integral(t, s, params):
    """d/dt of [z, integral of lambda]: s (N, latent + 1)."""
    z = s[:, :-1]
    return tf.concat([mlp(params["dynamics"], z), tf.exp(log_intensity(params["intensity"], z))[:, None]], axis=1)


def poisson_log_likelihood(log_intensities, integrals, mask):
    """Log-likelihood (N,) in nats: log_intensities (N, k) at the events, where mask (N, k) is 1; integrals (N,)."""
    return anp.sum(log_intensities * mask, axis=1) - integrals


def sample_events(rng, intensity, bound, start, end, count):
    """(events, mask), each (count, k): Poisson processes on [start, end] by thinning (Lewis and Shedler 1979).

    intensity(t), for times t (count, m) of each sequence, is at most `bound`; ValueError where it is not. Padding holds `end`.
    """
    candidates = rng.poisson(bound * (end - start), count)
    t = np.sort(rng.uniform(start, end, (count, max(1, candidates.max()))), axis=1)
    # The first of sorted uniform draws would not be uniform: which ones are candidates is drawn too.
    ranks = np.argsort(np.argsort(rng.random(t.shape), axis=1), axis=1)
    rates = intensity(t)
    if np.any(rates > bound) or np.any(rates < 0):
        raise ValueError(f"intensity must lie between 0 and bound = {bound}, got values from {rates.min()} to {rates.max()}")
    kept = (ranks < candidates[:, None]) & (rng.random(t.shape) * bound < rates)
    mask = np.sort(kept, axis=1)[:, ::-1]
    length = max(1, int(mask.sum(1).max()))
    return np.sort(np.where(kept, t, end), axis=1)[:, :length], mask[:, :length].astype(np.float64)


class PointProcess:
    """Sequences of events that share one intensity lambda(z(t)), t in [start, end].

    Functions of the parameters of `init_point_process`. Solver settings are those of `solvers_bridge.odeint`. Keep the object,
    which holds the compiled graphs.
    """

    def __init__(self, start, end, *, method="adams", rtol=1.5e-8, atol=1.5e-8, **solver_settings):
        self.start, self.end = float(start), float(end)
        self.solver = {"method": method, "rtol": rtol, "atol": atol, **solver_settings}
        self.dynamics = TensorFlowDynamics(dynamics_with_integral, "float64")
        self.log_intensity = tensorflow_primitive(log_intensity, "float64")

    def states(self, params, times):
        """[z, integral of lambda since start] (T, latent + 1) at increasing times, the first of them start."""
        s0 = anp.concatenate([params["z0"], np.zeros(1)])[None]
        shared = {name: params[name] for name in ("dynamics", "intensity")}
        return odeint(self.dynamics, s0, times, shared, **self.solver)[:, 0]

    def log_likelihood(self, params, events, mask):
        """Log-likelihood (N,) of each sequence, events (N, k) in [start, end], in nats."""
        grid, (indices, end) = union_grid(self.start, np.where(mask > 0, events, self.end), np.array([self.end]))
        states = self.states(params, grid)
        logs = self.log_intensity(params["intensity"], states[:, :-1][indices])
        return poisson_log_likelihood(logs, states[end, -1], mask)

    def value_and_grad(self, params, events, mask):
        """(metrics, gradient) for `training.fit`: the mean negative log-likelihood of a sequence, and evaluations."""
        return loss_and_gradient(lambda params: (self.log_likelihood(params, events, mask), {}), params)

    def intensity(self, params, times):
        """lambda (len(times),) at increasing times from start on."""
        grid, (indices,) = union_grid(self.start, np.asarray(times, np.float64))
        return np.exp(self.log_intensity(params["intensity"], self.states(params, grid)[indices, :-1]))


class LatentOdeWithEvents(LatentOde):
    """A latent ODE whose trajectory also drives the intensity of a Poisson process: data and events under one likelihood.

    q(z0) is recognised from the data. end: where the interval of the events ends. Functions of the parameters of
    `init_latent_ode_with_events`.
    """

    def __init__(self, end, **settings):
        super().__init__(**settings)
        self.end = float(end)
        self.joint_dynamics = TensorFlowDynamics(dynamics_with_integral, "float64")
        self.log_intensity = tensorflow_primitive(log_intensity, "float64")

    def elbo(self, params, times, values, mask, events, events_mask, draws, weights=None):
        """The evidence lower bound (N,) of series and events, and its parts, in nats; events (N, k) in [start, end].

        Otherwise as LatentOde.elbo; one solve on the union of the times of observations and events.
        """
        weights = mask if weights is None else weights
        grid, (where_seen, where_events, end) = union_grid(
            self.start,
            np.where(weights > 0, times, self.start),
            np.where(events_mask > 0, events, self.end),
            np.array([self.end]),
        )
        z0, kl = self.sampled(params, times, values, mask, draws)
        states = self.joint_trajectories(params, z0, grid)
        log_likelihood = self.data_likelihood(params, at_own_times(states[..., :-1], where_seen), values, weights)
        logs = self.log_intensity(params["intensity"], at_own_times(states[..., :-1], where_events))
        of_events = poisson_log_likelihood(logs, states[end[0], :, -1], events_mask)
        return log_likelihood + of_events - kl, {"log_likelihood": log_likelihood, "events": of_events, "kl": kl}

    def value_and_grad(self, params, times, values, mask, events, events_mask, draws, weights=None):
        """(metrics, gradient) for `training.fit`, as LatentOde.value_and_grad."""
        return loss_and_gradient(
            lambda params: self.elbo(params, times, values, mask, events, events_mask, draws, weights), params
        )

    def joint_trajectories(self, params, z0, times):
        """[z, integral of lambda] (len(times), N, latent + 1) from z0 (N, latent) at the first of increasing times."""
        s0 = anp.concatenate([z0, np.zeros((len(z0), 1))], axis=1)
        shared = {name: params[name] for name in ("dynamics", "intensity")}
        return odeint(self.joint_dynamics, s0, times, shared, **self.solver)

    def intensities(self, params, z0, times):
        """lambda (N, len(times)) of trajectories from z0 (N, latent) at start, at increasing times."""
        grid, (indices,) = union_grid(self.start, np.asarray(times, np.float64))
        states = self.joint_trajectories(params, np.asarray(z0), grid)[indices]
        return np.exp(self.log_intensity(params["intensity"], states[..., :-1])).T

    def events_log_likelihood(self, params, z0, events, mask):
        """Log-likelihood (N,) of events (N, k) in [start, end] on trajectories from z0 (N, latent) at start, in nats."""
        grid, (indices, end) = union_grid(self.start, np.where(mask > 0, events, self.end), np.array([self.end]))
        states = self.joint_trajectories(params, np.asarray(z0), grid)
        logs = self.log_intensity(params["intensity"], at_own_times(states[..., :-1], indices))
        return poisson_log_likelihood(logs, states[end[0], :, -1], mask)

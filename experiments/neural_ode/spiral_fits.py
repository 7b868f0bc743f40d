"""Fits of Table 2's models to irregularly observed spirals, and their errors at the further times."""

import functools
import json
from pathlib import Path

import numpy as np

from original_repro import training
from original_repro.datasets import spirals

from . import table2_figures

MODELS = table2_figures.LABELS
SPACING = spirals.Geometry().spacing
# The longest step of a fixed grid; output times that are closer are crossed in one step.
STEP = 4 * SPACING
# How the reverse sweep may be solved: settings of odeint beyond the forward solver's; latent_restarts measures them.
WAYS = {
    "paper": {},
    "warm": {"adjoint_options": {"restart": "warm"}},
    "seminorm": {"adjoint_options": {"norm": "seminorm"}},
    "checkpoint": {"adjoint_options": {"checkpoint": 100}},
    "adams_1e-5": {"adjoint_rtol": 1e-5, "adjoint_atol": 1e-5},
    "adams_1e-3": {"adjoint_rtol": 1e-3, "adjoint_atol": 1e-3},
    "lsoda": {"adjoint_method": "lsoda"},
    "dopri5": {"adjoint_method": "dopri5", "adjoint_options": {"first_step": SPACING}},
    "dopri5_1e-5": {
        "adjoint_method": "dopri5",
        "adjoint_options": {"first_step": SPACING},
        "adjoint_rtol": 1e-5,
        "adjoint_atol": 1e-5,
    },
    "dop853": {"adjoint_method": "dop853", "adjoint_options": {"first_step": SPACING}},
    "midpoint": {"adjoint_method": "midpoint", "adjoint_options": {"step_size": STEP}},
    "rk4": {"adjoint_method": "rk4", "adjoint_options": {"step_size": STEP}},
    "rk4_half": {"adjoint_method": "rk4", "adjoint_options": {"step_size": SPACING / 2}},
    "all_1e-5": {"rtol": 1e-5, "atol": 1e-5},
}
BEST = "rk4"
# Of the 100 output times, those that an iteration has in its log-likelihood.
FEW_TIMES = 20


def fit(task):
    """One fit, or the rest of it: {"model", "points", "params", "history", "seconds", "test": {model: RMSE by targets}}."""
    from original_repro import latent_ode

    train, validation, test = make_data(task)
    net, params = make_network(task, train)
    identity = {key: value for key, value in task.items() if key != "checkpoint"}
    best = Best(task["checkpoint"], identity)

    def value_and_grad(params, *batch):
        metrics, gradient = net.value_and_grad(params, *batch)
        return metrics, training.clip_norm(gradient, task["clip_norm"])

    def batch(chosen, rng, horizon):
        times, values, mask = series(train, chosen)
        if task["model"] != "latent_ode":
            return times, values, mask
        draws, grid = rng.normal(size=(len(times), 4)), train.grid[:horizon]
        return (
            times,
            values,
            mask,
            draws,
            latent_ode.weights_of_few_times(times, mask, grid, min(task["few_times"], horizon), rng),
        )

    def evaluate(params):
        error = rmse(net, params, validation)["noisy"]
        best.offer(error, params)
        return {"rmse": error}

    history, done = [], 0
    for stage in range(len(task["stages"])):
        params, epochs = fit_stage(
            stage,
            task,
            value_and_grad,
            params,
            batch,
            len(train.times),
            seed=task["seed"],
            evaluate=evaluate,
            checkpoint=_of_stage(task["checkpoint"], stage),
            progress=f"{MODELS[task['model']]}, {task['points']} observations",
            configuration=identity,
        )
        history += [{"stage": stage, "iteration": done + epoch["steps"], **epoch} for epoch in epochs]
        done = history[-1]["iteration"]
    params = best.params()
    return {
        "model": task["model"],
        "points": task["points"],
        "params": params,
        "history": history,
        "seconds": sum(epoch["wall_seconds"] for epoch in history),
        "test": test_errors(task["model"], net, params, test),
    }


def fit_stage(stage, chosen, value_and_grad, params, batch, count, *, seed, progress, **further):
    """(parameters, epochs) of training.fit on one of chosen["stages"], (horizon, iterations) each; further: training.fit's.

    batch(members, rng, horizon) makes a batch of some of count series.
    """
    horizon, iterations = chosen["stages"][stage]
    evaluations = max(1, iterations // chosen["iterations_an_evaluation"])
    steps = iterations // evaluations
    return training.fit(
        value_and_grad,
        params,
        batches=training.index_batches(functools.partial(batch, horizon=horizon), count, chosen["batch_size"], steps),
        optimiser=training.adam(),
        schedule=training.warmup_cosine(chosen["peak_rate"], evaluations * steps, evaluations * steps // 50),
        epochs=evaluations,
        seed=seed + stage,
        checkpoint_every=10**9,
        checkpoint_seconds=20,
        progress=f"{progress}, stage {stage + 1} of {len(chosen['stages'])}",
        **further,
    )


def _of_stage(checkpoint, stage):
    return checkpoint and Path(checkpoint).with_suffix(f".{stage}.npz")


class Best:
    """The parameters with the least error so far, kept beside the checkpoint of the first stage; without that the run is new."""

    def __init__(self, checkpoint, identity):
        self.path = checkpoint and Path(checkpoint).with_suffix(".best.npz")
        self.identity, self.kept = json.dumps(identity), None
        if self.path is not None and self.path.exists() and _of_stage(checkpoint, 0).exists():
            kept = training.load_checkpoint(self.path)
            # Those of version 0.1.0 do not say what they are of; the checkpoint does.
            if kept.get("identity", self.identity) == self.identity:
                self.kept = kept

    def offer(self, error, params):
        """Keep the parameters if their error is less than that of those kept."""
        if self.kept is None or error < self.kept["error"]:
            self.kept = {"error": error, "params": params, "identity": self.identity}
            if self.path is not None:
                training.save_checkpoint(self.path, self.kept)

    def params(self):
        """Those kept."""
        return self.kept["params"]


def make_data(task):
    """Trajectories (training, validation, test) of a task."""
    geometry = spirals.GEOMETRIES[task["geometry"]]
    return spirals.make_sets(task["seed"], tuple(task["trajectories"].values()), task["points"], task["noise"], geometry)


# About the standard deviation of the spirals' coordinates: networks see values of order one, errors are in the spirals' unit.
SCALE = 1.4


def make_network(task, train):
    """(network, initial parameters) of a task."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import latent_ode

    params = initial_params(task["model"], np.random.default_rng(task["seed"]), task["encoder"])
    if task["model"] == "latent_ode":
        net = latent_ode.LatentOde(encoder=task["encoder"], compiler=task.get("compiler", "graph"), **WAYS[task["reverse"]])
        return net, params
    return latent_ode.Rnn(time_gaps=task["model"] == "rnn_dt", mean_gap=np.diff(train.times, axis=1).mean()), params


def initial_params(model, rng, encoder="rnn"):
    from original_repro import latent_ode

    if model == "latent_ode":
        return latent_ode.init_latent_ode(rng, encoder=encoder)
    return latent_ode.init_rnn(rng, time_gaps=model == "rnn_dt")


def series(data, chosen=slice(None)):
    """(times, scaled values, mask) of the chosen trajectories, nothing of which is padding."""
    return data.times[chosen], data.values[chosen] / SCALE, np.ones_like(data.times[chosen])


def predict(net, params, data):
    """Predicted values (N, steps, 2) at the further times of Trajectories, from their observations."""
    if hasattr(net, "posterior"):
        return SCALE * net.generate(params, net.posterior(params, *series(data))[0], data.further_times)
    times, values, _ = series(data)
    return SCALE * net.predict(params, times, values, data.further_times)


def rmse(net, params, data):
    """Root mean square error over all coordinates of the further points: {"noisy": ..., "clean": ...}."""
    predicted = predict(net, params, data)
    return {
        kind: float(np.sqrt(np.mean((predicted - targets) ** 2)))
        for kind, targets in (("noisy", data.further_noisy), ("clean", data.further_clean))
    }


def test_errors(model, net, params, test):
    """{model: RMSE by targets}; of an RNN without times also as it predicts step by step."""
    from original_repro import latent_ode

    errors = {model: rmse(net, params, test)}
    if model == "rnn":
        stepwise = latent_ode.Rnn(time_gaps=False, mean_gap=np.diff(test.grid).mean())
        errors["rnn_stepwise"] = rmse(stepwise, params, test)
    return errors

"""Figure 7: a Poisson-process likelihood through a latent ODE, alone and together with a data likelihood.

Alone: event times on [0, 5] from an intensity of one period, 4 (1 + 0.9 sin(2 pi t / 5)) events a unit of time; the model is a
latent trajectory that all sequences share, z0 being a parameter, with lambda(z(t)). Trajectory and integral come from one
call of odeint over the union of a batch's event times. Held-out sequences give the log-likelihood beside that of the true
intensity; "constant" is that of the best constant one.

Together: the spirals of Table 2 with 30 observations and noise 0.1, each with events whose rate depends on where the spiral is,
4 (1 + 0.9 cos(angle)) a unit of time. Training begins with the weights that `run table2_latent_ode` left for the data alone,
and the ELBO has both likelihoods. q(z0) is recognised from the observations alone, so that the intensities of held-out spirals,
at the mean of q(z0), are predictions from data to events.

The learning rates were chosen by the training objective. Reverse sweep as in table2_latent_ode.
"""

import time

import numpy as np

from original_repro import training
from original_repro.datasets import spirals

from .. import Experiment, Section
from ..harness import plotting, records
from . import spiral_fits, table2_latent_ode
from .spiral_fits import BEST, WAYS

NAME = "figure7_poisson"
PRESETS = {
    "quick": {
        "alone": {"train": 100, "test": 200, "iterations": 150, "batch_size": 5, "peak_rate": 3e-2},
        "together": {"train": 400, "test": 50, "iterations": 40, "batch_size": 10, "peak_rate": 1e-2},
    },
    "paper": {
        "alone": {"train": 500, "test": 1000, "iterations": 1000, "batch_size": 10, "peak_rate": 3e-2},
        "together": {"train": 1000, "test": 200, "iterations": 600, "batch_size": 10, "peak_rate": 1e-2},
    },
}
RATE, DEPTH, END, PERIOD = 4.0, 0.9, 5.0, 5.0
POINTS, NOISE = 30, 0.1
CLIP_NORM = 100.0


def true_intensity(t):
    """Events a unit of time at t."""
    return RATE * (1 + DEPTH * np.sin(2 * np.pi * t / PERIOD))


def intensity_on_spirals(paths):
    """Events a unit of time at points (..., 2)."""
    return RATE * (1 + DEPTH * paths[..., 0] / np.linalg.norm(paths, axis=-1))


def run(settings, places):
    """Both fits, held-out likelihoods, figure and record; returns the record. FileNotFoundError where there are no weights."""
    begun = time.perf_counter()
    name = f"latent_ode_{POINTS}"
    weights_path, weights, digest = table2_latent_ode.kept_weights(settings, places, [name])
    preset = PRESETS[settings.preset]
    checkpoints = places.checkpoint_folder(NAME, settings.stem)
    alone, alone_curves = fit_alone(preset["alone"], settings.seed, checkpoints / "alone.npz")
    together, together_curves = fit_together(preset["together"], settings.seed, checkpoints / "together.npz", weights[name])
    history = [
        *({"part": "alone", **epoch} for epoch in alone.pop("history")),
        *({"part": "together", **epoch} for epoch in together.pop("history")),
    ]
    metrics = {**alone, **{f"together_{name}": value for name, value in together.items()}}
    configuration = {
        "data": "Poisson processes",
        **preset,
        "clip_norm": CLIP_NORM,
        "rate": RATE,
        "depth": DEPTH,
        "end": END,
        "period": PERIOD,
        "spirals": {"points": POINTS, "noise": NOISE},
        "weights": weights_path.name,
        "weights_sha256": digest,
        "optimiser": "adam",
        "schedule": "cosine to zero",
        "solver": {"method": "adams", "tolerance": 1.5e-8, **WAYS[BEST]},
    }
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=metrics,
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )
    _draw(alone_curves, together_curves, metrics, places.figure(NAME, settings.stem))
    return record


def _fit(net, params, settings, seed, checkpoint, batch):
    """(parameters, history) of a training on batch(indices of examples, rng)."""
    evaluations = 5
    steps = settings["iterations"] // evaluations

    def value_and_grad(params, *batch):
        metrics, gradient = net.value_and_grad(params, *batch)
        return metrics, training.clip_norm(gradient, CLIP_NORM)

    return training.fit(
        value_and_grad,
        params,
        batches=training.index_batches(batch, settings["train"], settings["batch_size"], steps),
        optimiser=training.adam(),
        schedule=training.warmup_cosine(settings["peak_rate"], evaluations * steps),
        epochs=evaluations,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_every=10**9,
        checkpoint_seconds=20,
        configuration=settings,
    )


def fit_alone(settings, seed, checkpoint):
    """Metrics, with "history", and curves (t, learned, true, events of one held-out sequence) of sequences with one intensity."""
    from original_repro import point_process

    rng = np.random.default_rng(seed)
    bound = RATE * (1 + DEPTH)
    events, mask = point_process.sample_events(rng, true_intensity, bound, 0.0, END, settings["train"])
    test_events, test_mask = point_process.sample_events(rng, true_intensity, bound, 0.0, END, settings["test"])
    net = point_process.PointProcess(0.0, END, **WAYS[BEST])
    params, history = _fit(
        net,
        point_process.init_point_process(rng),
        settings,
        seed,
        checkpoint,
        lambda chosen, rng: (events[chosen], mask[chosen]),
    )
    t = np.linspace(0, END, 1001)
    learned, true = net.intensity(params, t), true_intensity(t)
    integral = np.trapezoid(true, t)
    counts = test_mask.sum(1)
    true_logs = np.sum(np.log(np.where(test_mask > 0, true_intensity(test_events), 1.0)), axis=1)
    constant = mask.sum() / len(mask) / END
    metrics = {
        "intensity_relative_l2": relative_l2(learned, true),
        "log_likelihood": float(np.mean(net.log_likelihood(params, test_events, test_mask))),
        "log_likelihood_true": float(np.mean(true_logs) - integral),
        "log_likelihood_constant": float(np.mean(counts) * np.log(constant) - constant * END),
        "events_per_sequence": float(np.mean(counts)),
        "history": history,
    }
    return metrics, (t, learned, true, test_events[0][test_mask[0] > 0])


def fit_together(settings, seed, checkpoint, weights):
    """From weights of a latent ODE: metrics, with "history", and curves (t, learned (N, len(t)), true (N, len(t)), clockwise)
    of spirals with events.
    """
    from original_repro import latent_ode, point_process

    train, test = spirals.make_sets(seed, (settings["train"], settings["test"]), POINTS, NOISE)
    rng = np.random.default_rng(seed)
    end = train.grid[-1]
    (events, mask), (test_events, test_mask) = (_events_on(data, rng, end) for data in (train, test))
    net = point_process.LatentOdeWithEvents(end, **WAYS[BEST])

    def batch(chosen, rng):
        times, values, seen = spiral_fits.series(train, chosen)
        few = latent_ode.weights_of_few_times(times, seen, train.grid, spiral_fits.FEW_TIMES, rng)
        return times, values, seen, events[chosen], mask[chosen], rng.normal(size=(len(chosen), 4)), few

    params, history = _fit(net, point_process.init_latent_ode_with_events(rng, weights), settings, seed, checkpoint, batch)
    z0 = net.posterior(params, *spiral_fits.series(test))[0]
    learned, true = net.intensities(params, z0, test.grid), intensity_on_spirals(test.clean)
    at_events = intensity_on_spirals(_clean_at(test, test_events))
    true_logs = np.sum(np.log(np.where(test_mask > 0, at_events, 1.0)), axis=1)
    constant = mask.sum() / len(mask) / end
    rebuilt = spiral_fits.SCALE * net.generate(params, z0, test.grid)
    metrics = {
        "intensity_relative_l2": relative_l2(learned, true),
        "log_likelihood": float(np.mean(net.events_log_likelihood(params, z0, test_events, test_mask))),
        "log_likelihood_true": float(np.mean(true_logs - np.trapezoid(true, test.grid, axis=1))),
        "log_likelihood_constant": float(np.mean(test_mask.sum(1)) * np.log(constant) - constant * end),
        "reconstruction_rmse": float(np.sqrt(np.mean((rebuilt - test.clean) ** 2))),
        "history": history,
    }
    return metrics, (test.grid, learned, true, test.clockwise)


def relative_l2(learned, true):
    """Root of the integrated squared difference of intensities on an even grid over that of the true one."""
    return float(np.sqrt(np.sum((learned - true) ** 2) / np.sum(true**2)))


def _events_on(data, rng, end):
    """Events of each spiral on [0, end], by thinning, as (events, mask)."""
    from original_repro import point_process

    return point_process.sample_events(
        rng, lambda t: intensity_on_spirals(_clean_at(data, t)), RATE * (1 + DEPTH), 0.0, end, len(data.clean)
    )


def _clean_at(data, times):
    """Points (N, k, 2) of the clean spirals at times (N, k) within the grid, linear between its steps."""
    return np.stack([[np.interp(t, data.grid, x) for x in path.T] for t, path in zip(times, data.clean)]).swapaxes(1, 2)


def _draw(alone, together, metrics, path):
    figure, panels = plotting.subplots(1, 3, figsize=(13, 3.6), width_ratios=(1.4, 1, 1), sharey=True)
    t, learned, true, events = alone
    panels[0].plot(t, true, color="0.7", linewidth=3, label="true")
    panels[0].plot(t, learned, color="C0", label="learned")
    panels[0].plot(events, np.zeros_like(events), "|", color="k", markersize=14, label="events of one sequence")
    panels[0].set(
        title=f"Events alone: relative L2 error {100 * metrics['intensity_relative_l2']:.1f} %",
        ylabel="events per unit of time",
        ylim=(0, 1.35 * RATE * (1 + DEPTH)),
    )
    panels[0].legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
    t, learned, true, clockwise = together
    for axes, way, name in ((panels[1], True, "clockwise"), (panels[2], False, "counter-clockwise")):
        for k, i in enumerate(np.flatnonzero(clockwise == way)[:3]):
            axes.plot(t, true[i], color=f"C{k}", linewidth=3, alpha=0.35, label="true" if k == 0 else None)
            axes.plot(t, learned[i], color=f"C{k}", label="from data" if k == 0 else None)
        axes.set_title(f"Held-out spirals, {name}")
    panels[2].legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
    for axes in panels:
        axes.set_xlabel("time")
    plotting.save(figure, path)


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 7",
    shows="a Poisson process with a latent ODE's intensity, alone and beside data",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=table2_latent_ode.WeightsSettings,
    takes={"quick": "1 min"},
    needs=table2_latent_ode.NAME,
    section=Section(
        "Figure 7: Poisson process",
        captions={
            "": "Figure 7, an inhomogeneous Poisson process: its intensity learned from event times alone, and intensities of "
            "held-out spirals that a latent ODE infers from their points."
        },
    ),
)

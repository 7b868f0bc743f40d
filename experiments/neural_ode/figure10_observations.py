"""Figure 10 with a latent ODE that was trained on what it is shown: 10 to 100 observations.

The latent ODE of Table 2 for 30 observations reconstructs best from about as many, and worse from 100 than from 50: it never saw
that many. Here one is trained on spirals each of which is seen at a number of times drawn anew for every batch, between 10 and
100, and reconstructs test spirals from 10, 20, 30, 50 and 100 observations; RMSE to the clean spirals on the observed interval.
Settings of the training are those of table2_latent_ode for 30 observations.
"""

import time

import numpy as np

from original_repro import training
from original_repro.datasets import spirals

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from . import figures8to10_latent_ode, spiral_fits, table2_latent_ode
from .figures8to10_latent_ode import FEWER_AND_MORE

NAME = "figure10_observations"
NOISE = figures8to10_latent_ode.NOISE
PRESETS = {"quick": {"test": 200}, "paper": {"test": 1000}}


def run(settings, places):
    """Train, reconstruct, write weights and record; returns the record; goes on from checkpoints."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    of_table = table2_latent_ode.PRESETS[settings.preset]
    chosen = table2_latent_ode.fit_settings(of_table, "latent_ode", figures8to10_latent_ode.POINTS)
    folder = places.checkpoint_folder(NAME, settings.stem)
    params, history = fit(chosen, of_table["trajectories"], of_table["compiler"], settings.seed, folder)
    training.save_weights(places.weights(NAME, settings.stem), params)
    errors = reconstruction_errors(params, preset["test"], settings.seed)
    pairs = zip(FEWER_AND_MORE, FEWER_AND_MORE[1:])
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={
            "noise": NOISE,
            "observations": [min(FEWER_AND_MORE), max(FEWER_AND_MORE)],
            "compiler": of_table["compiler"],
            **chosen,
            **preset,
        },
        metrics={
            **{f"reconstruction_rmse_{points}": error for points, error in errors.items()},
            "rise_greatest": max(errors[more] / errors[fewer] for fewer, more in pairs),
        },
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )


def fit(chosen, trajectories, compiler, seed, checkpoints):
    """(parameters, history) of a latent ODE trained on spirals seen at 10 to 100 of their times."""
    from original_repro import latent_ode

    train, *_ = spirals.make_sets(seed, tuple(trajectories.values()), max(FEWER_AND_MORE), NOISE)
    net = latent_ode.LatentOde(compiler=compiler, **spiral_fits.WAYS[spiral_fits.BEST])
    params, history = latent_ode.init_latent_ode(np.random.default_rng(seed)), []

    def value_and_grad(params, *batch):
        metrics, gradient = net.value_and_grad(params, *batch)
        return metrics, training.clip_norm(gradient, chosen["clip_norm"])

    def batch(members, rng, horizon):
        times, values, _ = spiral_fits.series(train, members)
        mask = observed(rng, *times.shape)
        weights = latent_ode.weights_of_few_times(times, mask, train.grid[:horizon], min(chosen["few_times"], horizon), rng)
        return times, values, mask, rng.normal(size=(len(times), 4)), weights

    for stage in range(len(chosen["stages"])):
        params, epochs = spiral_fits.fit_stage(
            stage,
            chosen,
            value_and_grad,
            params,
            batch,
            len(train.times),
            seed=seed,
            checkpoint=checkpoints / f"stage{stage}.npz",
            progress="latent ODE, 10 to 100 observations",
            configuration=chosen,
        )
        history += [{"stage": stage, "steps": epoch["steps"], **epoch["train"]} for epoch in epochs]
    return params, history


def observed(rng, count, steps):
    """Mask (count, steps) of as many series, each seen at 10 to 100 of its times, none of which is likelier than another."""
    points = rng.integers(min(FEWER_AND_MORE), min(max(FEWER_AND_MORE), steps) + 1, count)
    return (np.argsort(np.argsort(rng.random((count, steps)), axis=1), axis=1) < points[:, None]).astype(float)


def reconstruction_errors(params, count, seed):
    """{observations: RMSE to clean test spirals on the grid}, from the mean of q(z0)."""
    model, errors = figures8to10_latent_ode.Model(params), {}
    for points in FEWER_AND_MORE:
        data = figures8to10_latent_ode.test_set(seed, count, points)
        made = model.generate(model.posterior(data), data.grid)
        errors[points] = float(np.sqrt(np.mean((made - data.clean) ** 2)))
    return errors


def table(found):
    """Reconstruction errors, beside those of the model for 30 observations, in Markdown."""
    rows = [
        [label, *(f"{record['metrics'][f'reconstruction_rmse_{points}']:.4f}" for points in FEWER_AND_MORE)]
        for label, name in (("10 to 100 observations", NAME), ("30 observations", figures8to10_latent_ode.NAME))
        for record in filter(None, [records.first(found, name)])
        if f"reconstruction_rmse_{FEWER_AND_MORE[0]}" in record["metrics"]
    ]
    return markdown_table(["trained on", *(f"from {points}" for points in FEWER_AND_MORE)], rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 10",
    shows="reconstructions from 10 to 100 observations by a latent ODE trained on as many",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "1 min", "paper": "10 min"},
    in_all=False,  # A training as long as Table 2's.
    section=Section("Figure 10: trained on 10 to 100 observations", table),
)

"""Figures 8, 9 and 10: what a latent ODE makes of irregularly observed spirals, and what lies in its latent space.

The weights are those that `run table2_latent_ode` of the same preset and seed left, or those of --weights; the spirals are that
run's test set, seen at 30 irregular times. Figure 8: reconstruction and extrapolation (red) by the recurrent network and by the
latent ODE; 8c: latent trajectories from the means of q(z0), in the first two dimensions of the latent space, coloured by
direction, with the accuracy on held-out spirals of a linear probe (least squares) for the direction on z(t0). Two sets of orbits
in different planes about the same centre are apart, but not by a hyperplane; therefore a probe with the products of two
coordinates stands beside it. Figure 9: a spiral decoded while one coordinate of its z(t0) runs through the range that it has
over the test set: the coordinate that turns the direction around for the greatest share of spirals, and the first spiral for
which it does (else the first of all). The direction is about the origin; of the authors' later spirals (--geometry archimedean),
which lie elsewhere, about the path's own mean. Figure 10: the same spirals from 10 to 100 observations. Bands: 95 % of the
posterior predictive distribution, with the share of noisy points inside, within and beyond the observed times.
"""

import time
from typing import NamedTuple

import numpy as np

from original_repro.datasets import spirals

from .. import Experiment, Section
from ..harness import plotting, records
from . import spiral_fits, table2_latent_ode
from .spiral_fits import SCALE

NAME = "figures8to10_latent_ode"
PRESETS = {"quick": {"test": 200, "samples": 50}, "paper": {"test": 1000, "samples": 200}}
POINTS, NOISE = 30, 0.1
FEWER_AND_MORE = (10, 20, 30, 50, 100)
NEEDED = (f"latent_ode_{POINTS}", f"rnn_{POINTS}")
NORMAL_95 = 1.96


def run(settings, places):
    """Measure with the weights, draw the figures, write and return the record. FileNotFoundError where there are none."""
    begun = time.perf_counter()
    path, weights, digest = table2_latent_ode.kept_weights(settings, places, NEEDED)
    preset = PRESETS[settings.preset]
    model = Model(weights[f"latent_ode_{POINTS}"])
    data = test_set(settings.seed, preset["test"], POINTS, settings.geometry)
    metrics, found = measure(model, data, settings, preset)
    _draw(model, weights, data, metrics, found, settings, places)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={
            "data": f"spirals, noise {NOISE:g}",
            "points": POINTS,
            "weights": path.name,
            "weights_sha256": digest,
            **preset,
        },
        metrics=metrics,
        history=[],
        wall_seconds=time.perf_counter() - begun,
    )
    return record


def evaluate(settings, places):
    """The metrics of `run` but for the bands, whose samples take most of its time; no figures."""
    _, weights, _ = table2_latent_ode.kept_weights(settings, places, NEEDED)
    preset = PRESETS[settings.preset]
    model, data = Model(weights[f"latent_ode_{POINTS}"]), test_set(settings.seed, preset["test"], POINTS, settings.geometry)
    return measure(model, data, settings, {**preset, "samples": 0})[0]


def redraw(settings, places):
    """The figures of `run` again, from the weights alone; returns their paths."""
    _, weights, _ = table2_latent_ode.kept_weights(settings, places, NEEDED)
    preset = PRESETS[settings.preset]
    model, data = Model(weights[f"latent_ode_{POINTS}"]), test_set(settings.seed, preset["test"], POINTS, settings.geometry)
    return _draw(model, weights, data, *measure(model, data, settings, preset), settings, places)


def _draw(model, weights, data, metrics, found, settings, places):
    paths = {
        part: places.figure(NAME, f"{settings.stem}-{part}") for part in ("figure8", "figure8c", "figure9", "figure10", "bands")
    }
    _draw_figure8(model, RnnOf(weights[f"rnn_{POINTS}"], data), data, paths["figure8"])
    _draw_figure8c(model, found.means, data, found.probes, paths["figure8c"])
    _draw_figure9(model, found.walk, found.coordinate, data, settings.geometry == "archimedean", paths["figure9"])
    _draw_figure10(found.reconstructions, found.more, paths["figure10"])
    _draw_bands(found.mean, found.deviation, data, metrics, paths["bands"])
    return paths.values()


class _Found(NamedTuple):
    """What the figures show: of the data's spirals, and of the same ones seen at fewer and at more points."""

    means: np.ndarray
    probes: dict
    coordinate: int
    walk: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    more: dict
    reconstructions: dict


def measure(model, data, settings, preset):
    """(metrics, _Found) of a latent ODE on Trajectories; nothing of the bands where the preset has no samples."""
    means = model.posterior(data)
    probes = {
        "linear": direction_probe(means, data.clockwise),
        "quadratic": direction_probe(with_products(means), data.clockwise),
    }
    coordinate, share, walk = turning_coordinate(
        means, lambda z0: signed_area(model.generate(z0, data.grid), settings.geometry == "archimedean")
    )
    mean, deviation, of_bands = _bands(model, data, settings, preset["samples"]) if preset["samples"] else (None, None, {})
    more = {points: test_set(settings.seed, preset["test"], points, settings.geometry) for points in FEWER_AND_MORE}
    reconstructions = {points: model.generate(model.posterior(seen), seen.grid) for points, seen in more.items()}
    metrics = {
        "direction_probe_accuracy": probes["linear"],
        "direction_probe_quadratic_accuracy": probes["quadratic"],
        "figure9_coordinate": coordinate + 1,
        "figure9_share_turned": share,
        **of_bands,
        "imputation_rmse": model.imputation_error(data),
        **{
            f"reconstruction_rmse_{points}": float(np.sqrt(np.mean((made - data.clean) ** 2)))
            for points, made in reconstructions.items()
        },
    }
    return metrics, _Found(means, probes, coordinate, walk, mean, deviation, more, reconstructions)


def _bands(model, data, settings, samples):
    """(means, standard deviations, metrics) of the posterior's predictions at all times, by samples of z(t0)."""
    rng = np.random.default_rng(settings.seed)
    mean, deviation = model.predictive(data, np.concatenate([data.grid, data.further_times]), rng, samples)
    inside = np.abs(np.concatenate([data.noisy, data.further_noisy], 1) - mean) < NORMAL_95 * deviation
    steps = len(data.grid)
    coverage = {"observed": inside[:, :steps], "further": inside[:, steps:]}
    return mean, deviation, {f"band_coverage_{name}": float(part.mean()) for name, part in coverage.items()}


def direction_probe(z0, clockwise):
    """Accuracy on the second half of the spirals of a linear classifier fitted to z0 (N, latent) of the first half."""
    inputs, targets = np.column_stack([z0, np.ones(len(z0))]), np.where(clockwise, -1.0, 1.0)
    half = len(z0) // 2
    probe = np.linalg.lstsq(inputs[:half], targets[:half], rcond=None)[0]
    return float(np.mean(np.sign(inputs[half:] @ probe) == targets[half:]))


def with_products(z0):
    """z0 (N, latent) with all products of two of its coordinates beside it."""
    first, second = np.triu_indices(z0.shape[1])
    return np.column_stack([z0, z0[:, first] * z0[:, second]])


def turning_coordinate(z0, area_of, spirals=50, count=7):
    """(coordinate, share, walk (count, latent)): the coordinate of z0 (N, latent) that turns the direction of most of the first
    spirals.

    area_of(z0) -> the signed area of the spirals from z0. Each coordinate moves from its 2nd to its 98th percentile over all z0;
    share: of spirals whose two ends turn in opposite directions. walk: one of them on its way.
    """
    ends = np.percentile(z0, (2, 98), axis=0)
    first, latent = z0[:spirals], z0.shape[1]
    moved = np.tile(first, (latent, 2, 1, 1))
    for k in range(latent):
        moved[k, ..., k] = ends[:, k, None]
    areas = area_of(moved.reshape(-1, latent)).reshape(latent, 2, len(first))
    turned = areas[:, 0] * areas[:, 1] < 0
    coordinate = int(np.argmax(turned.mean(1)))
    walk = np.tile(first[np.argmax(turned[coordinate])], (count, 1))
    walk[:, coordinate] = np.linspace(*ends[:, coordinate], count)
    return coordinate, float(turned[coordinate].mean()), walk


def signed_area(paths, centred=False):
    """Twice the area (N,) swept by the radius along paths (N, T, 2): positive counter-clockwise.

    The radius begins at the origin or, if `centred`, at each path's mean: for arcs about other points.
    """
    paths = paths - paths.mean(1, keepdims=True) if centred else paths
    here, there = paths[:, :-1], paths[:, 1:]
    return np.sum(here[..., 0] * there[..., 1] - here[..., 1] * there[..., 0], axis=1)


def test_set(seed, count, points, geometry="growing"):
    """The first spirals of table2's test set, in its paper preset's sizes, at any number of observed points."""
    counts = tuple(table2_latent_ode.PRESETS["paper"]["trajectories"].values())
    return spirals.head(spirals.make_sets(seed, counts, points, NOISE, spirals.GEOMETRIES[geometry])[2], count)


class Model:
    """The latent ODE with its weights, in the spirals' unit of length."""

    def __init__(self, params):
        from original_repro import latent_ode

        self.params = params
        # No gradients are taken here.
        self.net = latent_ode.LatentOde()

    def posterior(self, data):
        """Means of q(z0) (N, latent)."""
        return self.net.posterior(self.params, *spiral_fits.series(data))[0]

    def posterior_with_deviation(self, data):
        """Means and standard deviations of q(z0), each (N, latent)."""
        return self.net.posterior(self.params, *spiral_fits.series(data))

    def decode(self, states):
        """Means (N, T, 2) of the values, from latent states (T, N, latent)."""
        return SCALE * np.swapaxes(self.net.decode(self.params, states), 0, 1)

    def latent(self, z0, times):
        """Latent trajectories (len(times), N, latent)."""
        return self.net.trajectories(self.params, z0, times)

    def generate(self, z0, times):
        """Paths (N, len(times), 2)."""
        return SCALE * self.net.generate(self.params, z0, times)

    def predictive(self, data, times, rng, samples):
        """Mean and standard deviation (N, len(times), 2) of noisy values."""
        mean, deviation = self.net.predictive(self.params, *spiral_fits.series(data), times, rng, samples)
        return SCALE * mean, SCALE * deviation

    def imputation_error(self, data):
        """RMSE against the clean spirals of the values imputed at the times of the grid without observation."""
        mask = np.zeros(data.noisy.shape[:2])
        np.put_along_axis(mask, np.searchsorted(data.grid, data.times), 1.0, axis=1)
        times = np.tile(data.grid, (len(mask), 1))
        values = np.where(mask[..., None] > 0, data.noisy, np.nan)
        imputed = SCALE * self.net.impute(self.params, times, values / SCALE, mask)
        return float(np.sqrt(np.mean((imputed - data.clean)[mask == 0] ** 2)))


class RnnOf:
    """The recurrent network with its weights, in the spirals' unit of length."""

    def __init__(self, params, data):
        from original_repro import latent_ode

        self.params = params
        self.net = latent_ode.Rnn(time_gaps=False, mean_gap=np.diff(data.times, axis=1).mean())

    def one_step_ahead(self, data):
        """Predictions (N, n - 1, 2) of each observation but the first from those before it."""
        times, values, _ = spiral_fits.series(data)
        return SCALE * self.net.predict_next(self.params, times, values)

    def predict(self, data):
        """Predictions (N, steps, 2) at the further times."""
        return spiral_fits.predict(self.net, self.params, data)


def _truth_and_seen(axes, truth, values):
    axes.plot(*truth.T, color="0.75", linewidth=3, label="truth")
    axes.plot(*values.T, "k.", markersize=4, label="observations")
    axes.set_aspect("equal")


def _legend_below(figure, panels):
    """One legend of everything drawn, below the panels, where it hides nothing."""
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


def _shown(data, count):
    """Indices of the first spirals of both directions, in turn."""
    both = [np.flatnonzero(data.clockwise == way)[: (count + 1) // 2] for way in (True, False)]
    return np.stack(both, 1).ravel()[:count]


def _draw_figure8(model, rnn, data, path):
    """Rows: recurrent network, latent ODE; columns: spirals."""
    chosen = _shown(data, 4)
    figure, panels = plotting.subplots(2, 4, figsize=(12, 6.6), squeeze=False, sharex=True, sharey=True)
    seen = model.generate(model.posterior(data)[chosen], data.grid)
    further = spiral_fits.predict(model.net, model.params, data)
    ahead, fed_back = rnn.one_step_ahead(data), rnn.predict(data)
    for column, i in enumerate(chosen):
        recurrent, latent = panels[:, column]
        for axes in (recurrent, latent):
            _truth_and_seen(axes, np.concatenate([data.clean[i], data.further_clean[i]]), data.values[i])
        # Each from the observations before it: points, not a path.
        recurrent.plot(*ahead[i].T, "x", color="C0", markersize=4, label="one step ahead")
        recurrent.plot(*np.concatenate([ahead[i][-1:], fed_back[i]]).T, color="C3", label="extrapolation")
        latent.plot(*seen[column].T, color="C0", label="reconstruction")
        latent.plot(*np.concatenate([seen[column][-1:], further[i]]).T, color="C3", label="extrapolation")
        latent.set_xlabel("x")
    panels[0, 0].set_ylabel("recurrent network\ny")
    panels[1, 0].set_ylabel("latent ODE\ny")
    _legend_below(figure, panels[:, 0])
    figure.suptitle(f"{POINTS} observations, then 100 further time points")
    plotting.save(figure, path, dpi=95)


def _draw_figure8c(model, z0, data, probes, path):
    states = model.latent(z0[:100], data.grid)[..., :2]
    figure, axes = plotting.subplots(1, 1, figsize=(5.6, 5.2))
    for way, colour, label in ((True, "C0", "clockwise"), (False, "C1", "counter-clockwise")):
        members = np.flatnonzero(data.clockwise[:100] == way)
        for k, i in enumerate(members):
            axes.plot(*states[:, i].T, color=colour, linewidth=0.7, alpha=0.7, label=label if k == 0 else None)
        axes.plot(*states[0, members].T, ".", color=colour, markersize=4)
    axes.set(
        xlabel="z1",
        ylabel="z2",
        title="Latent trajectories, dots at t0; direction found at t0:\n"
        + ", ".join(f"{100 * accuracy:.1f} % by a {kind} probe" for kind, accuracy in probes.items()),
    )
    axes.title.set_fontsize(10)
    _legend_below(figure, [axes])
    plotting.save(figure, path, dpi=95)


def _draw_figure9(model, walk, coordinate, data, centred, path):
    times = np.concatenate([data.grid, data.further_times])
    paths = model.generate(walk, times)
    figure, axes = plotting.subplots(1, len(walk), figsize=(15, 3.0), squeeze=False, sharex=True, sharey=True)
    for one, made, z, area in zip(axes[0], paths, walk, signed_area(paths, centred)):
        points = one.scatter(*made.T, c=times, s=4, cmap="rainbow")
        one.plot(*made[0], "ko", markersize=4)
        way = "counter-clockwise" if area > 0 else "clockwise"
        one.set_title(f"z{coordinate + 1}(t0) = {z[coordinate]:.2f}\n{way}", fontsize=9)
        one.set(xlabel="x", aspect="equal")
    axes[0, 0].set_ylabel("y")
    figure.colorbar(points, ax=axes.ravel().tolist(), label="time", pad=0.01)
    plotting.save(figure, path, dpi=95)


def _draw_figure10(reconstructions, more, path):
    data = more[FEWER_AND_MORE[0]]
    chosen = _shown(data, 3)
    figure, axes = plotting.subplots(3, len(FEWER_AND_MORE), figsize=(12, 7.9), squeeze=False, sharex=True, sharey=True)
    for column, points in enumerate(FEWER_AND_MORE):
        for row, i in enumerate(chosen):
            one = axes[row, column]
            _truth_and_seen(one, data.clean[i], more[points].values[i])
            one.plot(*reconstructions[points][i].T, color="C0", label="reconstruction")
        axes[0, column].set_title(f"{points} observations", fontsize=10)
        axes[-1, column].set_xlabel("x")
    for one in axes[:, 0]:
        one.set_ylabel("y")
    _legend_below(figure, [axes[0, 0]])
    plotting.save(figure, path, dpi=95)


def _draw_bands(mean, deviation, data, metrics, path):
    times = np.concatenate([data.grid, data.further_times])
    noisy = np.concatenate([data.noisy, data.further_noisy], 1)
    figure, axes = plotting.subplots(2, 3, figsize=(12, 5), squeeze=False, sharex=True)
    for column, i in enumerate(_shown(data, 3)):
        for row, name in enumerate("xy"):
            one = axes[row, column]
            low, high = (mean[i, :, row] + sign * NORMAL_95 * deviation[i, :, row] for sign in (-1, 1))
            one.fill_between(times, low, high, color="C0", alpha=0.25, label="95 % band")
            one.plot(times, mean[i, :, row], color="C0", linewidth=1)
            one.plot(times, noisy[i, :, row], ".", color="0.6", markersize=2, label="not observed")
            one.plot(data.times[i], data.values[i, :, row], "k.", markersize=4, label="observations")
            one.axvline(data.grid[-1], color="grey", linestyle=":", linewidth=1)
            one.set_ylabel(name)
        axes[1, column].set_xlabel("time")
    _legend_below(figure, [axes[0, 0]])
    figure.suptitle(
        f"Posterior bands: {100 * metrics['band_coverage_observed']:.1f} % of all points inside within the observed "
        f"times, {100 * metrics['band_coverage_further']:.1f} % beyond",
        fontsize=11,
    )
    plotting.save(figure, path, dpi=95)


EXPERIMENT = Experiment(
    name=NAME,
    resumes=False,
    source="Figures 8 to 10",
    shows="spirals reconstructed and extrapolated; the latent space of directions",
    run=run,
    redraw=redraw,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=table2_latent_ode.WeightsSettings,
    takes={"quick": "1 min"},
    evaluate=evaluate,
    evaluation_settings=table2_latent_ode.WeightsSettings,
    kept=({},),
    needs=table2_latent_ode.NAME,
    section=Section(
        "Figures 8 to 10: latent ODE",
        captions={
            "figure8": "Figure 8, spirals seen at 30 irregular times: one-step-ahead predictions (crosses) and extrapolation of "
            "the recurrent network, reconstruction and extrapolation of the latent ODE.",
            "figure8c": "Figure 8c, latent trajectories in the first two dimensions of the latent space, coloured by direction, "
            "and how well probes find the direction at t0.",
            "figure9": "Figure 9, one spiral decoded while one coordinate of its initial latent state changes: it turns around.",
            "figure10": "Figure 10, reconstructions of the same spirals from 10 to 100 observations.",
            "bands": "Posterior predictive bands of 95 % over time, within and beyond the observed times, which end at the "
            "dotted line.",
        },
    ),
)

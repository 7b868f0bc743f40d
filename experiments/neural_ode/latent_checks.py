"""What section 5 claims of a latent ODE, checked on the weights that `run table2_latent_ode` of this preset and seed left.

Clusters (Figure 8c): the trajectory of each test spiral in the first two latent dimensions, from the mean of q(z0), has a shape:
the covariance of its (z1, z2) over time, divided by its trace. Two clusters of these shapes, found without labels (k-means, the
best of ten starts), have as their purity the share of spirals whose cluster's more frequent direction is theirs. For 30, 50 and
100 observations. Beside it, as information, clusters by the twist of (z1, z2): the area swept about the trajectory's centre, over
the mean squared distance from there, the first way that was tried, and by the whole path, which is what Figure 8c
shows of spirals that lie apart (--geometry archimedean).
Samples (Figure 8): reconstructions from one draw of q(z0) for each spiral, against those from its mean, RMSE to clean spirals.
Backwards in time: z(t) solved from t0 to a fifth of the interval before it, against the spirals' own past; beside it as long a
stretch after the observed times.
Missing values: bands of 90 % of the posterior predictive distribution, and the share of noisy points inside among those of the
grid that were not observed.
Tolerance: the predictive RMSE of Table 2 at looser tolerances against that at 1.5e-8.
"""

import time

import numpy as np
from scipy.cluster.vq import kmeans2

from original_repro.datasets import spirals

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from . import figures8to10_latent_ode, spiral_fits, table2_latent_ode

NAME = "latent_checks"
PRESETS = {
    "quick": {"points": (30,), "bands": (30,), "test": 200, "samples": 50},
    "paper": {"points": (30, 50, 100), "bands": (30, 50), "test": 1000, "samples": 200},
}
TOLERANCES = (1e-3, 1e-5)
NORMAL_90 = 1.6448536269514722
SHARE_BACKWARDS = 0.2


def run(settings, places):
    """Measure with the weights, write and return the record. FileNotFoundError where there are none."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    needed = [f"latent_ode_{points}" for points in preset["points"]]
    path, weights, digest = table2_latent_ode.kept_weights(settings, places, needed)
    metrics, history = measure(weights, preset, settings)
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={
            "data": f"spirals, noise {figures8to10_latent_ode.NOISE:g}",
            "weights": path.name,
            "weights_sha256": digest,
            **preset,
        },
        metrics=metrics,
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )


def measure(weights, preset, settings):
    """(metrics, history) of the latent ODEs of some weights."""
    rng, metrics, history = np.random.default_rng(settings.seed), {}, []
    for points in preset["points"]:
        model = figures8to10_latent_ode.Model(weights[f"latent_ode_{points}"])
        data = figures8to10_latent_ode.test_set(settings.seed, preset["test"], points, settings.geometry)
        means, deviations = model.posterior_with_deviation(data)
        paths = model.latent(means, data.grid)[..., :2]
        metrics[f"cluster_purity_{points}"] = cluster_purity(two_clusters(shapes(paths)), data.clockwise)
        metrics[f"cluster_purity_by_twist_{points}"] = cluster_purity(two_clusters(twists(paths)), data.clockwise)
        whole = np.swapaxes(paths, 0, 1).reshape(len(means), -1)
        metrics[f"cluster_purity_by_path_{points}"] = cluster_purity(two_clusters(whole), data.clockwise)
        history += [{"part": "tolerance", "points": points, **row} for row in tolerance_rows(model, data)]
        if points in preset["bands"]:
            coverage = imputation_coverage(model, data, rng, preset["samples"])
            history.append({"part": "imputation", "points": points, "coverage": coverage})
        if points == figures8to10_latent_ode.POINTS:
            metrics |= reconstruction_by_samples(model, means, deviations, data, rng)
            if settings.geometry == "growing":
                metrics |= backwards_and_forwards(model, means, data)
    metrics["cluster_purity_least"] = min(metrics[f"cluster_purity_{points}"] for points in preset["points"])
    metrics["tolerance_loss_greatest"] = max(
        row["change"] for row in history if row["part"] == "tolerance" and row["tolerance"] == min(TOLERANCES)
    )
    return metrics, history


def cluster_purity(members, clockwise):
    """Share of spirals whose cluster's more frequent direction is theirs: members (N,) 0 or 1, clockwise (N,) booleans."""
    right = sum(max(np.sum(clockwise[members == k]), np.sum(~clockwise[members == k])) for k in (0, 1))
    return float(right / len(clockwise))


def shapes(paths):
    """(N, 3): variances and covariance of the coordinates of paths (T, N, 2) over time, divided by the sum of the variances."""
    x, y = np.moveaxis(paths - paths.mean(0), -1, 0)
    moments = np.stack([np.mean(x * x, 0), np.mean(x * y, 0), np.mean(y * y, 0)], 1)
    return moments / (moments[:, :1] + moments[:, 2:])


def twists(paths):
    """(N, 1): area that paths (T, N, 2) sweep about their centres, over the mean squared distance from there."""
    x, y = np.moveaxis(paths - paths.mean(0), -1, 0)
    area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1], axis=0)
    return (area / np.mean(x**2 + y**2, axis=0))[:, None]


def two_clusters(features, starts=10):
    """Which of two clusters each of the features (N, D) is in, 0 or 1, by k-means: of some starts that with the least squares."""
    found = []
    for seed in range(starts):
        centres, members = kmeans2(features, 2, minit="++", seed=seed)
        found.append((np.sum((features - centres[members]) ** 2), seed, members))
    return min(found)[2]


def reconstruction_by_samples(model, means, deviations, data, rng):
    """RMSE to the clean spirals on the grid, from one draw of q(z0) each and from its mean."""
    drawn = means + deviations * rng.normal(size=means.shape)
    by_draw, by_mean = (_rmse(model.generate(z0, data.grid), data.clean) for z0 in (drawn, means))
    return {"rmse_sample": by_draw, "rmse_mean": by_mean, "sample_over_mean_rmse": by_draw / by_mean}


def backwards_and_forwards(model, means, data):
    """RMSE to the clean spirals before the first time of the grid and after the last, over as many steps."""
    steps = round(SHARE_BACKWARDS * len(data.grid))
    spacing = data.grid[1] - data.grid[0]
    before = data.grid[0] - spacing * np.arange(steps + 1)
    past = spirals.spiral(
        before[1:], np.linalg.norm(data.clean[:, 0], axis=1), np.arctan2(*data.clean[:, 0, ::-1].T), data.clockwise
    )
    backwards = _rmse(model.decode(model.latent(means, before)[1:]), past)
    further = data.further_times[:steps]
    forwards = _rmse(model.generate(means, further), data.further_clean[:, :steps])
    return {
        "rmse_backwards": backwards,
        "rmse_forwards": forwards,
        "backwards_over_forwards_rmse": backwards / forwards,
    }


def imputation_coverage(model, data, rng, samples):
    """Share of the noisy points of the grid that were not observed inside bands of 90 %."""
    mean, deviation = model.predictive(data, data.grid, rng, samples)
    hidden = np.ones(data.noisy.shape[:2], bool)
    np.put_along_axis(hidden, np.searchsorted(data.grid, data.times), False, axis=1)
    inside = np.abs(data.noisy - mean) < NORMAL_90 * deviation
    return float(inside[hidden].mean())


def tolerance_rows(model, data):
    """Predictive RMSE (noisy targets) at each of TOLERANCES, and by what share it differs from that at 1.5e-8."""
    tight, rows = spiral_fits.rmse(model.net, model.params, data)["noisy"], []
    for tolerance in TOLERANCES:
        net = model.net.with_solver(rtol=tolerance, atol=tolerance)
        error = spiral_fits.rmse(net, model.params, data)["noisy"]
        rows.append({"tolerance": tolerance, "rmse": error, "change": abs(error / tight - 1)})
    return rows


def _rmse(made, truth):
    return float(np.sqrt(np.mean((made - truth) ** 2)))


def table(found):
    """All that was checked, of the first record, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics = record["metrics"]
    rows = [
        [
            f"purity of two clusters in (z1, z2), {points} observations; by the twist",
            ", ".join(f"{metrics[f'cluster_purity_{by}{points}']:.3f}" for by in ("", "by_twist_")),
        ]
        for points in record["configuration"]["points"]
    ]
    rows += [
        ["RMSE of reconstructions by single draws of q(z0), and by its mean", _both(metrics, "rmse_sample", "rmse_mean")],
        ["RMSE a fifth of the interval backwards in time, and forwards", _both(metrics, "rmse_backwards", "rmse_forwards")],
    ]
    for row in record["history"]:
        if row["part"] == "imputation":
            rows.append([f"points not observed inside bands of 90 %, {row['points']} observations", f"{row['coverage']:.1%}"])
        else:
            words = f"change of the predictive RMSE at {row['tolerance']:g}, {row['points']} observations"
            rows.append([words, f"{row['change']:.2%}"])
    return markdown_table(["checked", "found"], rows)


def _both(metrics, *names):
    return ", ".join(f"{metrics[name]:.4f}" for name in names)


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 5",
    shows="clusters, samples, extrapolation backwards, imputed bands and tolerances of trained latent ODEs",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=table2_latent_ode.WeightsSettings,
    takes={"quick": "20 s"},
    in_all=False,  # What it checks are the trained networks of the paper preset.
    needs=table2_latent_ode.NAME,
    section=Section("Section 5: what a trained latent ODE does", table),
)

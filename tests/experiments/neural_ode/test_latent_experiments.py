"""Table 2, the cost of restarts, Figures 7 to 10: tiny runs, records, figures, and going on after a stop."""

import json

import numpy as np
import pytest

from experiments import command_line
from experiments.harness import workers
from experiments.neural_ode import (
    figure7_poisson,
    figure10_observations,
    figures8to10_latent_ode,
    latent_checks,
    latent_encoders,
    latent_restarts,
    spiral_fits,
    table2_figures,
    table2_latent_ode,
    table2_tuning,
)
from original_repro import latent_ode, training

SHORT = {"stages": [[25, 2], [100, 4]], "iterations_an_evaluation": 2, "batch_size": 10, "peak_rate": 1e-2, "clip_norm": 10.0}
TINY = {
    "compiler": "graph",
    "points": (30,),
    "trajectories": {"train": 20, "validation": 5, "test": 10},
    "rnn": SHORT,
    "latent_ode": {**SHORT, "few_times": 5},
}


def folders(tmp_path):
    return ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(table2_latent_ode, "PRESETS", {"quick": TINY, "paper": TINY})
    monkeypatch.setattr(workers, "run_tasks", lambda function, tasks, workers: [function(task) for task in tasks])


def test_table2_and_what_is_measured_of_its_weights(tiny, tmp_path, monkeypatch):
    assert command_line.main(["run", "table2_latent_ode", *folders(tmp_path)]) == 0
    record = read(tmp_path / "runs" / "table2_latent_ode" / "quick-seed0.json")
    metrics = record["metrics"]
    for kind in ("noisy", "clean"):
        for model in ("rnn", "rnn_stepwise", "rnn_dt", "latent_ode"):
            assert 0 < metrics[f"rmse_{model}_30_{kind}"] < 10
        assert metrics[f"ratio_30_{kind}"] == metrics[f"rmse_latent_ode_30_{kind}"] / metrics[f"rmse_rnn_30_{kind}"]
    assert {one["model"] for one in record["history"]} == {"rnn", "rnn_dt", "latent_ode"}
    assert all(
        [(epoch["stage"], epoch["steps"]) for epoch in one["history"]] == [(0, 2), (1, 2), (1, 4)] for one in record["history"]
    )
    assert (tmp_path / "figures" / "table2_latent_ode-quick-seed0.png").stat().st_size > 10_000
    assert not (tmp_path / "figures" / "table2_latent_ode-quick-noise.png").exists()
    weights = training.load_weights(tmp_path / "weights" / "table2_latent_ode-quick-seed0.npz")
    assert set(weights) == {"rnn_30", "rnn_dt_30", "latent_ode_30"}

    names = figures_of(tmp_path, monkeypatch)
    metrics = read(tmp_path / "runs" / "figures8to10_latent_ode" / "quick-seed0.json")["metrics"]
    assert 0 <= metrics["direction_probe_accuracy"] <= 1 and 0 <= metrics["band_coverage_further"] <= 1
    assert metrics["imputation_rmse"] > 0 and metrics["reconstruction_rmse_10"] > 0
    assert names == {
        f"figures8to10_latent_ode-quick-seed0-{part}.png" for part in ("figure8", "figure8c", "figure9", "figure10", "bands")
    }
    monkeypatch.setitem(latent_checks.PRESETS, "quick", {"points": (30,), "bands": (30,), "test": 12, "samples": 3})
    assert command_line.main(["run", "latent_checks", *folders(tmp_path)]) == 0
    record = read(tmp_path / "runs" / "latent_checks" / "quick-seed0.json")
    assert 0.5 <= record["metrics"]["cluster_purity_30"] == record["metrics"]["cluster_purity_least"] <= 1
    assert record["metrics"]["backwards_over_forwards_rmse"] > 0 and record["metrics"]["sample_over_mean_rmse"] > 0
    assert [row["part"] for row in record["history"]] == ["tolerance", "tolerance", "imputation"]
    assert "bands of 90 %, 30 observations" in latent_checks.table([(None, record)])


def figures_of(tmp_path, monkeypatch):
    """Names of the figures that figures8to10_latent_ode leaves there."""
    monkeypatch.setitem(figures8to10_latent_ode.PRESETS, "quick", {"test": 12, "samples": 3})
    assert command_line.main(["run", "figures8to10_latent_ode", *folders(tmp_path)]) == 0
    return {path.name for path in (tmp_path / "figures").glob("figures8to10*.png")}


@pytest.mark.slow
def test_figures_8_to_10_are_drawn_again(tmp_path, monkeypatch):
    """Without record or training, from any weights."""
    weights = {"latent_ode_30": latent_ode.init_latent_ode(np.random.default_rng(0))}
    training.save_weights(tmp_path / "weights" / "table2_latent_ode-quick-seed0.npz", weights)
    names = figures_of(tmp_path, monkeypatch)
    before = {name: (tmp_path / "figures" / name).read_bytes() for name in names}
    assert len(before) == 5
    (tmp_path / "runs" / "figures8to10_latent_ode" / "quick-seed0.json").unlink()
    for name in names:
        (tmp_path / "figures" / name).unlink()
    assert command_line.main(["redraw", "figures8to10_latent_ode", "--out", str(tmp_path)]) == 0
    assert {name: (tmp_path / "figures" / name).read_bytes() for name in names} == before


def fitted(task):
    """What a fit would return: the better, the nearer its rate is to 1e-2."""
    rmse = abs(task["peak_rate"] - 1e-2) + 0.1
    errors = {"noisy": rmse, "clean": rmse}
    return {
        "model": task["model"],
        "points": task["points"],
        "params": {"rate": np.array(task["peak_rate"])},
        "history": [{"evaluation": {"rmse": rmse}, "iteration": 1}],
        "seconds": 1.0,
        "test": dict.fromkeys({"rnn": ("rnn", "rnn_stepwise")}.get(task["model"], (task["model"],)), errors),
    }


def test_settings_are_chosen_on_validation_spirals_and_taken_by_the_table(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(table2_tuning.PRESETS, "quick", {"peak_rates": (1e-3, 9e-3, 1e-1), "batch_sizes": (10,)})
    monkeypatch.setattr(spiral_fits, "fit", fitted)
    assert command_line.main(["run", "table2_latent_ode", "--tuned", "yes", *folders(tmp_path)]) == 1
    assert command_line.main(["run", "table2_tuning", *folders(tmp_path)]) == 0
    record = read(tmp_path / "runs" / "table2_tuning" / "quick-seed0.json")
    networks = ("latent_ode_30", "rnn_dt_30", "rnn_30")
    assert record["metrics"] == {f"looks_{name}": 3 for name in networks}
    assert record["configuration"]["chosen"] == dict.fromkeys(networks, {"peak_rate": 9e-3, "batch_size": 10})
    assert record["configuration"]["seed_of_spirals"] == 1000
    assert command_line.main(["run", "table2_latent_ode", "--tuned", "yes", *folders(tmp_path)]) == 0
    tuned = read(tmp_path / "runs" / "table2_latent_ode" / "quick-seed0-tuned=yes.json")
    assert tuned["configuration"]["rnn_dt_steps"] == "mean gap"
    assert tuned["metrics"]["rmse_latent_ode_30_noisy"] == pytest.approx(0.101)


@pytest.mark.slow
def test_a_latent_ode_of_varied_observations(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(figure10_observations.PRESETS, "quick", {"test": 10})
    assert command_line.main(["run", "figure10_observations", *folders(tmp_path)]) == 0
    record = read(tmp_path / "runs" / "figure10_observations" / "quick-seed0.json")
    errors = [record["metrics"][f"reconstruction_rmse_{points}"] for points in (10, 20, 30, 50, 100)]
    assert record["metrics"]["rise_greatest"] == max(after / before for before, after in zip(errors, errors[1:]))


def encoded(task):
    """What a fit would return: the attention's errors are half the other's, and validation prefers the rate 1e-2."""
    found = fitted({**task, "model": "latent_ode"})
    errors = {"noisy": task["peak_rate"] / (2 if task["encoder"] == "attention" else 1), "clean": 0.5}
    return {**found, "test": {"latent_ode": errors}}


def test_encoders_are_compared_at_the_rates_that_validation_chose(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(spiral_fits, "fit", encoded)
    preset = {"stages": [[25, 4]], "iterations_an_evaluation": 2, "peak_rates": (2e-2, 9e-3, 1e-3)}
    monkeypatch.setitem(latent_encoders.PRESETS, "quick", preset)
    assert command_line.main(["run", "latent_encoders", *folders(tmp_path)]) == 0
    record = read(tmp_path / "runs" / "latent_encoders" / "quick-seed0.json")
    assert record["configuration"]["rates_chosen"] == {"rnn": 9e-3, "attention": 9e-3}
    assert record["metrics"]["attention_over_rnn_noisy"] == 0.5 and record["metrics"]["attention_over_rnn_clean"] == 1.0
    assert "attention, 25 features" in latent_encoders.table([(tmp_path, record)])


@pytest.mark.slow
def test_a_latent_ode_with_either_encoder(tiny, tmp_path, monkeypatch):
    preset = {"stages": [[25, 4]], "iterations_an_evaluation": 2, "peak_rates": (1e-2,)}
    monkeypatch.setitem(latent_encoders.PRESETS, "quick", preset)
    assert command_line.main(["run", "latent_encoders", *folders(tmp_path)]) == 0
    metrics = read(tmp_path / "runs" / "latent_encoders" / "quick-seed0.json")["metrics"]
    assert 0 < metrics["rmse_rnn_noisy"] < 10 and 0 < metrics["rmse_attention_noisy"] < 10
    assert metrics["parameters_attention"] > metrics["parameters_rnn"]


def test_spirals_are_seen_at_10_to_100_times():
    mask = figure10_observations.observed(np.random.default_rng(0), 2000, 100)
    counts = mask.sum(1)
    assert counts.min() == 10 and counts.max() == 100 and mask.mean(0) == pytest.approx(0.55, abs=0.05)


def ellipses(flat, ways):
    """Paths (50, N, 2) around (3, 3), turning ways (N,) +1 or -1: flat in y where flat (N,) is True, else in x."""
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, len(flat))
    angle = np.linspace(0, 6, 50)[:, None] * ways + phase
    return 3 + np.stack([np.where(flat, 1.0, 0.5) * np.cos(angle), np.where(flat, 0.5, 1.0) * np.sin(angle)], -1)


def test_clusters_of_trajectories_are_found_without_labels():
    rng = np.random.default_rng(1)
    clockwise, other = np.arange(200) % 2 == 0, rng.random(200) < 0.5
    by_shape = ellipses(clockwise, rng.choice([-1.0, 1.0], 200))
    by_twist = ellipses(other, np.where(clockwise, -1.0, 1.0))
    for paths, shape, twist in ((by_shape, 1.0, 0.5), (by_twist, 0.5, 1.0)):
        for features, expected in ((latent_checks.shapes(paths), shape), (latent_checks.twists(paths), twist)):
            purity = latent_checks.cluster_purity(latent_checks.two_clusters(features), clockwise)
            assert purity == pytest.approx(expected, abs=0.1 if expected < 1 else 0.0)


def test_errors_over_noise_are_drawn(tmp_path):
    sizes, metrics = (
        (30, 50),
        {
            f"rmse_{model}_{size}_{kind}": 0.2
            for model in ("rnn", "latent_ode")
            for size in (30, 50)
            for kind in ("noisy", "clean")
        },
    )
    levels = {0.1: [{"metrics": metrics}, {"metrics": metrics}], 0.3: [{"metrics": metrics}]}
    table2_figures.draw_over_noise(levels, sizes, {"table2-latent-ode-30": 0.15}, tmp_path / "figures" / "noise.png")
    assert (tmp_path / "figures" / "noise.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["figures8to10_latent_ode", "figure7_poisson"])
def test_experiments_without_weights_name_the_command_that_makes_them(name, tmp_path, capsys):
    assert command_line.main(["run", name, "--seed", "4", *folders(tmp_path)]) == 1
    assert "`python -m experiments run table2_latent_ode --preset quick --seed 4" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_fit_goes_on_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    task = {
        "model": "latent_ode",
        "points": 30,
        "seed": 1,
        "noise": 0.1,
        "geometry": "growing",
        "encoder": "rnn",
        "reverse": "rk4",
        **TINY["latent_ode"],
        "trajectories": TINY["trajectories"],
    }
    whole = spiral_fits.fit({**task, "checkpoint": str(tmp_path / "whole.npz")})
    evaluate = spiral_fits.rmse
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(spiral_fits, "rmse", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spiral_fits.fit({**task, "checkpoint": str(tmp_path / "stopped.npz")})
    resumed = spiral_fits.fit({**task, "checkpoint": str(tmp_path / "stopped.npz")})
    # The third evaluation was not saved, and the test is one more.
    assert len(calls) == 3 + 1 + 1
    assert resumed["test"] == whole["test"]
    for one, other in zip(training.tree_leaves(resumed["params"]), training.tree_leaves(whole["params"]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_parameters_kept_are_those_with_the_least_validation_error(tmp_path):
    checkpoint = str(tmp_path / "fit.npz")
    best = spiral_fits.Best(checkpoint, {"seed": 1})
    for error, value in ((3.0, 1.0), (1.0, 2.0), (2.0, 3.0)):
        best.offer(error, {"weight": np.array([value])})
    assert best.params() == {"weight": 2.0}

    def goes_on(seed):
        again = spiral_fits.Best(checkpoint, {"seed": seed})
        again.offer(1.5, {"weight": np.array([4.0])})
        return again.params() == {"weight": 2.0}

    assert not goes_on(1)  # no checkpoint of the first stage: a run that begins
    best.offer(0.5, {"weight": np.array([2.0])})
    (tmp_path / "fit.0.npz").touch()
    assert goes_on(1) and not goes_on(2)


@pytest.mark.slow
def test_fresh_removes_the_folder_of_checkpoints(tiny, tmp_path):
    folder = tmp_path / "checkpoints" / "table2_latent_ode" / "quick-seed0"
    assert command_line.main(["run", "table2_latent_ode", *folders(tmp_path)]) == 0
    (folder / "left.npz").write_text("")
    assert command_line.main(["run", "table2_latent_ode", *folders(tmp_path)]) == 0 and (folder / "left.npz").exists()
    assert command_line.main(["run", "table2_latent_ode", "--fresh", *folders(tmp_path)]) == 0
    assert folder.exists() and not (folder / "left.npz").exists()


@pytest.mark.slow
def test_restarts_are_measured_every_way(tmp_path, monkeypatch):
    monkeypatch.setitem(
        latent_restarts.PRESETS,
        "quick",
        {"batch_size": 10, "rounds": 1, "trajectories": TINY["trajectories"], "training": TINY["latent_ode"]},
    )
    ways = {way: latent_restarts.WAYS[way] for way in ("paper", "dopri5", "rk4", "all_1e-5")}
    monkeypatch.setattr(latent_restarts, "WAYS", ways)
    monkeypatch.setattr(latent_restarts, "FEW_TIMES", 5)
    assert command_line.main(["run", "latent_restarts", *folders(tmp_path)]) == 0
    metrics = read(tmp_path / "runs" / "latent_restarts" / "quick-seed0.json")["metrics"]
    assert metrics["nfe_backward_rk4"] == 4 * 99 and metrics["nfe_backward_paper"] > 1000
    assert metrics["nfe_backward_few_times"] < 4 * 30
    assert metrics["gradient_error_paper"] < 1e-5 and metrics["gradient_error_rk4"] < 1e-5
    assert metrics["gradient_error_rk4"] < metrics["gradient_error_all_1e-5"] < 1e-2 < metrics["gradient_error_few_times"]
    assert all(metrics[f"seconds_{way}"] > 0 for way in ways)


def test_poisson_runs_record_likelihoods_beside_the_true_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(
        figure7_poisson.PRESETS,
        "quick",
        {
            "alone": {"train": 10, "test": 100, "iterations": 5, "batch_size": 2, "peak_rate": 1e-2},
            "together": {"train": 10, "test": 20, "iterations": 5, "batch_size": 2, "peak_rate": 1e-2},
        },
    )
    training.save_weights(tmp_path / "mine.npz", {"latent_ode_30": latent_ode.init_latent_ode(np.random.default_rng(0))})
    assert command_line.main(["run", "figure7_poisson", "--weights", str(tmp_path / "mine.npz"), *folders(tmp_path)]) == 0
    metrics = read(tmp_path / "runs" / "figure7_poisson" / "quick-seed0.json")["metrics"]
    assert metrics["events_per_sequence"] == pytest.approx(20, abs=3)
    for part in ("", "together_"):
        assert metrics[f"{part}log_likelihood_true"] > metrics[f"{part}log_likelihood_constant"]
        assert metrics[f"{part}log_likelihood_true"] > metrics[f"{part}log_likelihood"]
        assert metrics[f"{part}intensity_relative_l2"] > 0


def test_intensity_error_and_areas_by_hand():
    assert figure7_poisson.relative_l2(np.array([1.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(np.sqrt(1 / 5))
    square = np.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    np.testing.assert_allclose(figures8to10_latent_ode.signed_area(square), [2.0])
    np.testing.assert_allclose(figures8to10_latent_ode.signed_area(square[:, ::-1]), [-2.0])


def test_an_arc_far_from_the_origin_turns_about_its_own_mean():
    angle = np.linspace(0, 2, 30) * [[1.0], [-1.0]]
    arcs = np.stack([3 * np.cos(angle) - 20, 3 * np.sin(angle)], -1)
    assert list(np.sign(figures8to10_latent_ode.signed_area(arcs, centred=True))) == [1, -1]
    assert list(np.sign(figures8to10_latent_ode.signed_area(arcs))) == [-1, 1]


def test_a_probe_finds_a_direction_that_is_there():
    rng = np.random.default_rng(0)
    clockwise = rng.random(400) < 0.5
    z0 = rng.normal(size=(400, 4))
    assert 0.3 < figures8to10_latent_ode.direction_probe(z0, clockwise) < 0.7
    planes = z0.copy()
    planes[clockwise, :2], planes[~clockwise, 2:] = 0.0, 0.0
    assert figures8to10_latent_ode.direction_probe(planes, clockwise) < 0.7
    assert figures8to10_latent_ode.direction_probe(figures8to10_latent_ode.with_products(planes), clockwise) > 0.9
    z0[:, 2] += np.where(clockwise, -8.0, 8.0)
    assert figures8to10_latent_ode.direction_probe(z0, clockwise) == 1.0


def test_the_walk_moves_the_coordinate_that_turns_most_spirals():
    z0 = np.random.default_rng(1).normal(size=(400, 4))
    # The third coordinate decides, but not where the first is large.
    coordinate, share, walk = figures8to10_latent_ode.turning_coordinate(
        z0, lambda z: np.where(z[:, 0] > 1, 1.0, np.sign(z[:, 2])), spirals=50, count=5
    )
    assert coordinate == 2 and share == np.mean(z0[:50, 0] <= 1)
    base = z0[np.argmax(z0[:50, 0] <= 1)]
    np.testing.assert_array_equal(walk[:, [0, 1, 3]], np.tile(base[[0, 1, 3]], (5, 1)))
    np.testing.assert_allclose(walk[:, 2], np.linspace(*np.percentile(z0[:, 2], (2, 98)), 5))


@pytest.mark.slow
def test_table2_in_worker_processes_gives_the_same_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(table2_latent_ode, "PRESETS", {"quick": TINY})
    results = []
    for name, number in (("one", "1"), ("two", "2")):
        assert command_line.main(["run", "table2_latent_ode", "--workers", number, *folders(tmp_path / name)]) == 0
        metrics = read(tmp_path / name / "runs" / "table2_latent_ode" / "quick-seed0.json")["metrics"]
        results.append({key: value for key, value in metrics.items() if key.startswith(("rmse", "ratio"))})
    assert results[0] == results[1]

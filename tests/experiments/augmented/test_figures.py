"""The second paper's experiments at their smallest: records, metrics, tables and figures, and what failures do to them."""

import json
import time

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.augmented import (
    figure3_swap,
    figure5_losses,
    figure6_features,
    figure9_slice,
    figure13_overfitting,
    propositions,
    summary,
    table1_images,
    toy,
    trained,
    weight_decay,
)
from experiments.harness import plotting, records
from experiments.harness.workers import WorkerSettings
from original_repro.datasets.toy_functions import spheres


@pytest.fixture
def tiny(monkeypatch):
    """Problems of a few points, two repetitions of two epochs, trained in this process."""

    def in_process(function, tasks, workers, finished=None):
        results = [function(task) for task in tasks]
        for place, result in enumerate(results):
            finished(place, result)
        return results

    monkeypatch.setattr(trained, "run_tasks", in_process)
    monkeypatch.setitem(toy.TASK, "hidden", 4)
    monkeypatch.setitem(toy.TASK, "compiler", "graph")  # each network of these few iterations would be compiled
    monkeypatch.setitem(toy.TASK, "batch_size", 60)
    for dim in (1, 2):
        few = toy.Problem(lambda rng, dim=dim: spheres(rng, dim, inner=20, outer=40), dim, True)
        monkeypatch.setitem(toy.PROBLEMS, f"spheres{dim}", few)
    two = {"repetitions": 2, "epochs": 2}
    monkeypatch.setitem(figure5_losses.PRESETS, "quick", {**two, "problems": ("spheres1", "spheres2")})
    monkeypatch.setitem(figure9_slice.PRESETS, "quick", two)
    monkeypatch.setitem(weight_decay.PRESETS, "quick", {**two, "decays": (0.0, 1e-2)})
    monkeypatch.setitem(propositions.PRESETS, "quick", {"tolerances": (1e-3, 1e-5), "points": 4, "dense": 20, "repetitions": 1})
    monkeypatch.setitem(figure3_swap.PRESETS, "quick", {"repetitions": 1, "epochs": {"identity": 1, "flip": 2}, "keep_every": 1})
    monkeypatch.setitem(figure3_swap.COMMON, "batch_size", 250)


def run(module, tmp_path, *options):
    """(metrics, table, names of figures) of a run through the command line."""
    folders = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    assert command_line.main(["run", module.NAME, *folders, *options]) == 0
    found = [(path, record) for path, record in records.read_records(tmp_path) if record["experiment"] == module.NAME]
    figures = {path.name for path in (tmp_path / "figures").glob(f"{module.NAME}-*.png")}
    return found[-1][1]["metrics"], module.table(found), figures


@pytest.mark.slow
def test_losses_and_features_share_their_trainings(tiny, tmp_path, monkeypatch):
    metrics, table, figures = run(figure5_losses, tmp_path)
    assert metrics["failed"] == 0 and 0 < metrics["loss_spheres2_node"] < 2 and metrics["loss_spheres1_resnet_sd"] > 0
    low, high = metrics["course_ratio_spheres2_node_anode_low"], metrics["course_ratio_spheres2_node_anode_high"]
    assert low < metrics["course_ratio_spheres2_node_anode"] < high
    assert "g, d = 2" in table and figures == {"anode_figure5-quick-seed0.png", "anode_figure5-quick-seed0-flows.png"}

    monkeypatch.setattr(toy, "train", lambda task: pytest.fail("trained again"))
    metrics, table, figures = run(figure6_features, tmp_path)
    assert metrics["nfe_first_spheres2_node"] >= 8 and metrics["growth_ratio_spheres1"] > 0
    assert "NODE / ANODE" in table and len(figures) == 2

    metrics, table, figures = run(propositions, tmp_path)
    assert metrics["models_spheres2_node"] == metrics["winding_one_spheres2_node"] == 1
    assert metrics["tunnel_most_spheres2_node"] < 0 < metrics["gap_least_spheres1_node"]
    assert metrics["det_least_spheres1_anode"] > 0 and "1 of 1" in table and len(figures) == 1


@pytest.mark.slow
def test_the_swap(tiny, tmp_path):
    metrics, table, figures = run(figure3_swap, tmp_path)
    assert metrics["flip_node_squared_error_least"] > 1 and metrics["flip_node_gap_least"] > 0
    assert metrics["identity_node_nfe_last"] >= 8 and "g, ANODE" in table and len(figures) == 1
    (record,) = (tmp_path / "runs" / figure3_swap.NAME).glob("*.json")
    rows = json.loads(record.read_text())["history"]
    assert [row["problem"] for row in rows] == ["identity", "flip", "flip"]
    assert [one["epoch"] for one in rows[1]["judgement"]["swaps"]] == [0, 1, 2]


@pytest.mark.slow
def test_a_slice_left_out_and_weight_decay(tiny, tmp_path):
    metrics, table, figures = run(figure9_slice, tmp_path)
    assert (
        metrics["gap_node_q1"] <= metrics["gap_node"] <= metrics["gap_node_q3"] and 0 <= metrics["held_out_accuracy_anode"] <= 1
    )
    assert "accuracy on the slice" in table and len(figures) == 1
    metrics, table, figures = run(weight_decay, tmp_path)
    assert metrics["nfe_node_0.01"] >= 8 and metrics["loss_anode_0"] > 0 and "0.01" in table and len(figures) == 1


def test_a_record_of_images_has_the_sessions_of_its_checkpoint(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(table1_images.records, "sessions_of", lambda path: asked.append(path) or [])
    run(table1_images, tmp_path, "--model", "linear", "--epochs", "2")
    assert [path.name for path in asked] == ["quick-seed0-model=linear.npz"]


@pytest.mark.slow
def test_images_a_run_a_model_and_overfitting(tmp_path, monkeypatch):
    monkeypatch.setitem(table1_images.PRESETS["quick"], "examples", 40)
    monkeypatch.setitem(table1_images.PRESETS["quick"], "test_examples", 20)
    monkeypatch.setattr(table1_images.images, "SIZES", {"grey": {"node": (6, 0), "anode": (4, 2)}})
    run(table1_images, tmp_path, "--model", "linear")
    run(table1_images, tmp_path, "--readout", "own", "--epochs", "2")
    metrics, table, figures = run(table1_images, tmp_path, "--model", "node")
    assert 0 <= metrics["test_accuracy"] <= metrics["test_accuracy_best"] <= 1 and metrics["nfe_forward_last"] >= 8
    assert all(label in table for label in ("NODE k = 6, p = 0",)) and figures == {"anode_images-quick-mnist_sample_half.png"}
    tiny = {"data": "mnist_sample_half", "examples": 20, "test_examples": 10, "batch_size": 20, "epochs": 2}
    monkeypatch.setitem(figure13_overfitting.PRESETS, "quick", tiny)
    metrics, table, figures = run(figure13_overfitting, tmp_path)
    assert metrics["failed_node"] is None and metrics["epochs_anode"] == 2 and metrics["nfe_most_node"] >= 8
    assert "ANODE" in table and len(figures) == 1


def test_a_failed_solve_counts_as_the_evaluations_at_which_it_is_given_up():
    def result(evaluations, failed=None):
        return {"failed": failed, "history": [{"train": {"loss": 1.0, "nfe_forward": nfe}} for nfe in evaluations]}

    failed = {"after_records": 2, "kind": "solve", "reason": "larger nmax is needed"}
    metrics = figure13_overfitting.metrics_of({"node": result([20.0, 30.0], failed), "anode": result([20.0, 50.0, 40.0])})
    assert metrics["growth_node"] == 300 and metrics["growth_anode"] == 2.5 and metrics["nfe_last_anode"] == 40
    not_finite = figure13_overfitting.metrics_of({"node": result([20.0, 30.0], {**failed, "kind": "loss"})})
    assert not_finite["growth_node"] == 1.5
    at_once = figure13_overfitting.metrics_of({"node": result([], failed)})
    assert at_once == {"failed_node": failed, "epochs_node": 0}


def one(seed, losses, failed=None, **task):
    made = toy.task(seed=seed, epochs=3, **task)
    epochs = [{"loss": loss, "nfe_forward": 14.0 + 6 * i} for i, loss in enumerate(losses)]
    return trained.Trained(made, {"epochs": epochs, "failed": failed, "seconds": 1.0}, None)


def test_failures_are_counted_and_their_curves_end():
    runs = [one(0, [3.0, 2.0, 1.0]), one(1, [3.0], {"iteration": 60, "reason": "underflow"})]
    assert summary.failures(runs) == 1 and summary.finals(runs, "loss") == [1.0]
    np.testing.assert_array_equal(summary.curves(runs, "loss"), [[3, 2, 1], [3, np.nan, np.nan]])
    assert (
        summary.by_seed(runs, summary.in_epoch(-1, "nfe_forward")) == {0: 26.0}
        and runs[1].row()["failed"]["reason"] == "underflow"
    )
    figure, axes = plotting.subplots(figsize=(3, 3))
    summary.draw_curves(axes, runs, "loss")
    assert axes.get_legend_handles_labels()[1] == ["NODE, 1 failed"]


def test_a_ratio_has_an_interval_over_the_pairs():
    ratio, low, high = summary.ratio({0: 2.0, 1: 8.0, 2: 1.0}, {0: 1.0, 1: 1.0})
    assert ratio == pytest.approx(4.0) and low < 1 < 16 < high
    assert summary.ratio({0: 2.0}, {0: 1.0}) == (2.0, None, None) and summary.ratio({}, {}) == (None, None, None)
    assert summary.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5) and summary.quartiles([]) == (None, None, None)


def test_a_difference_has_an_interval_over_the_pairs():
    mean, low, high = summary.difference({0: 2.0, 1: 8.0, 2: 1.0}, {0: 1.0, 1: 1.0})
    assert mean == pytest.approx(4.0) and low < 1 < 7 < high
    assert summary.difference({0: 2.0}, {0: 2.0}) == (0.0, None, None) and summary.difference({}, {}) == (None, None, None)


def test_evaluations_are_compared_at_equal_loss():
    runs = [
        one(0, [1.0, 0.04, 0.01], problem="spheres1"),
        one(1, [1.0, 1.0, 1.0], problem="spheres1"),
        one(0, [0.04, 0.01, 0.0], problem="spheres1", model="anode", extra=5),
        one(1, [1.0, 0.01, 0.0], problem="spheres1", model="anode", extra=5),
    ]
    runs += [one(seed, [1.0] * 3, model=model, extra=extra) for seed in (0, 1) for model, extra in (("node", 0), ("anode", 5))]
    metrics = figure6_features.metrics_of(runs)
    assert metrics["fitted_spheres1_node"] == 1 and metrics["fitted_spheres1_anode"] == 2
    assert metrics["nfe_equal_loss_ratio_spheres1"] == pytest.approx(20 / 14)
    assert metrics["nfe_equal_loss_ratio_spheres2"] is None and metrics["growth_spheres1_node"] == pytest.approx(26 / 14)


def test_the_course_of_the_loss_is_compared():
    runs = [
        one(seed, losses, problem=problem, model=model, extra=5 if model == "anode" else 0)
        for problem in ("spheres1", "separable1")
        for model, losses in (("resnet", [3.0, 0.0, 0.0]), ("node", [3.0, 2.0, 1.0]), ("anode", [1.0, 1.0, 1.0]))
        for seed in (0, 1)
    ]
    metrics = figure5_losses.metrics_of(runs, ("spheres1", "separable1"))
    assert metrics["course_ratio_spheres1_node_anode"] == pytest.approx(2.0)
    assert metrics["course_gap_spheres1"] == metrics["course_gap_spheres1_low"] == pytest.approx(1.0)
    assert metrics["reached_spheres1_resnet"] == 2 and metrics["epochs_spheres1_resnet"] == 2
    assert metrics["reached_spheres1_node"] == 0 and metrics["epochs_spheres1_node"] is None


def test_trainings_that_were_made_before_count_in_the_time_of_a_run():
    runs = [one(seed, [1.0]) for seed in range(4)]
    assert trained.wall_seconds(time.perf_counter(), runs, 2) == 2.0
    assert trained.wall_seconds(time.perf_counter() - 10, runs, 2) >= 10


def test_a_fresh_run_trains_again(tmp_path, monkeypatch):
    tasks, count = [toy.task(model="resnet", epochs=1)], []
    monkeypatch.setattr(trained, "run_tasks", lambda function, tasks, workers, finished: [function(task) for task in tasks])
    monkeypatch.setattr(toy, "train", lambda task: count.append(1) or {"epochs": [], "failed": None, "seconds": 0.0})
    for fresh in (False, False, True):
        trained.train_all(tasks, Places(out=tmp_path, checkpoints=tmp_path, fresh=fresh), 1)
    assert len(count) == 2
    assert trained.seeds(WorkerSettings(seed=2), 3) == [200, 201, 202]


def test_matched_models_are_chosen_by_the_images():
    settings = table1_images.RunSettings
    assert [settings(model="node", data="cifar10").task()[name] for name in ("filters", "extra")] == [125, 0]
    assert [settings(preset="paper").task()[name] for name in ("filters", "extra", "data")] == [64, 5, "mnist"]
    assert [settings(filters=7, extra=0).task()[name] for name in ("filters", "extra")] == [7, 0]

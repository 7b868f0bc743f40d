"""One training of a synthetic problem, its failure, its file, and the judgement of a trained model."""

import numpy as np
import pytest

from experiments.augmented import toy
from original_repro import training
from tests.helpers import some_fast


def quick(**settings):
    few = {"epochs": 2, "hidden": 8, "batch_size": 500, "keep_epochs": (0, 2), "compiler": "graph"}
    return toy.task(**{**few, **settings})


@pytest.mark.parametrize(
    "problem, model, extra",
    some_fast([("spheres2", "anode", 1), ("separable1", "resnet", 0), ("flip", "node", 0)], ("spheres2", "anode", 1)),
)
def test_a_training_keeps_losses_evaluations_and_parameters(problem, model, extra):
    task = quick(problem=problem, model=model, extra=extra)
    result = toy.train(task)
    steps = 2 * (len(toy.points_of(task)[0].x) // 500)
    assert len(result["epochs"]) == 2 and len(result["iterations"]["loss"]) == steps and result["failed"] is None
    assert result["epochs"][1]["loss"] == pytest.approx(result["iterations"]["loss"][steps // 2 :].mean())
    assert ("nfe_forward" in result["iterations"]) == (model != "resnet")
    first, last = result["kept"][0], result["kept"][2]
    assert any((a != b).any() for a, b in zip(training.tree_leaves(first), training.tree_leaves(last)))
    assert ("head" in last) == (problem != "flip")
    again = toy.train(task)
    np.testing.assert_array_equal(again["iterations"]["loss"], result["iterations"]["loss"])
    for one, other in zip(training.tree_leaves(last), training.tree_leaves(again["params"]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_training_with_compiled_graphs_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert toy.TASK["compiler"] == "auto"
    graph, auto = (toy.train(quick(problem="spheres1", batch_size=2000, compiler=compiler)) for compiler in ("graph", "auto"))
    np.testing.assert_allclose(auto["iterations"]["loss"], graph["iterations"]["loss"], rtol=1e-5)
    np.testing.assert_array_equal(auto["iterations"]["nfe_forward"], graph["iterations"]["nfe_forward"])


def test_models_of_a_seed_see_the_same_points_and_a_slice_is_for_validation():
    node, resnet = quick(slice_removed=True), quick(slice_removed=True, model="resnet")
    for one, other in zip(toy.points_of(node), toy.points_of(resnet)):
        np.testing.assert_array_equal(one.x, other.x)
    result = toy.train(resnet)
    assert all(0 < epoch["validation_loss"] < 5 for epoch in result["epochs"])
    assert not np.array_equal(toy.points_of(quick(seed=1))[0].x, toy.points_of(quick())[0].x)


def test_a_run_that_cannot_be_solved_is_a_result():
    result = toy.train(quick(problem="spheres1", rate=1e4, epochs=5))
    assert result["failed"] and 1 < result["failed"]["iteration"] <= 30 and result["failed"]["reason"]
    assert len(result["iterations"]["loss"]) in (result["failed"]["iteration"], result["failed"]["iteration"] - 1)


def test_weight_decay_pulls_at_every_parameter():
    params, grads = {"a": np.float32([1.0, -2.0])}, {"a": np.float32([0.5, 0.5])}
    np.testing.assert_allclose(toy.with_decay(grads, params, 0.1)["a"], [0.6, 0.3])
    assert toy.with_decay(grads, params, 0.0) is grads


def test_a_result_is_kept_and_made_again_for_another_task(tmp_path, monkeypatch):
    task, path = quick(problem="spheres1", model="resnet"), tmp_path / "runs" / "one.npz"
    first = toy.train_or_load(task, path)
    monkeypatch.setattr(toy, "train", lambda task: pytest.fail("trained again"))
    again = toy.train_or_load(task, path)
    np.testing.assert_array_equal(again["iterations"]["loss"], first["iterations"]["loss"])
    assert again["epochs"] == first["epochs"] and again["kept"].keys() == {0, 2}
    monkeypatch.setattr(toy, "train", lambda task: {"epochs": [], "seed": task["seed"]})
    assert toy.train_or_load({**task, "seed": 1}, path)["seed"] == 1
    monkeypatch.setattr(toy, "train", lambda task: {"epochs": [], "again": True})
    assert toy.train_or_load({**task, "seed": 1}, path, fresh=True)["again"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"problem": "cubes"}, "problem must be one of identity"),
        ({"model": "mlp"}, "model must be one of resnet"),
        ({"model": "anode"}, "an anode has extra dimensions"),
        ({"extra": 1}, "and other models none, got node with 1"),
        ({"rates": 1}, "a task has no rates"),
    ],
)
def test_tasks_of_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        toy.task(**settings)


@pytest.mark.slow
def test_judgement_of_flows_of_the_line_and_of_the_plane():
    for problem, model, extra in (("flip", "node", 0), ("spheres2", "node", 0), ("spheres2", "anode", 1)):
        task = quick(problem=problem, model=model, extra=extra)
        params = training.tree_map(lambda leaf: 1.5 * leaf, toy.model_of(task)[1])
        answers = toy.judge(task, params, tolerances=(1e-3, 1e-6), points=6, dense=50)
        assert answers["tightest"] == 1e-6 and [row["failed"] for row in answers["ladder"]] == [None, None]
        assert answers["ladder"][1]["reconstruction_max"] < 1e-3
        if problem == "flip":
            assert answers["gap"] > 0 and answers["swap"]["squared_error"] > 1
        else:
            assert 0 < answers["dense"]["tight"]["wrong"] <= 1 and ("winding" in answers) == (model == "node")
            assert model == "anode" or (answers["winding"] == 1 and answers["tunnel"] < 0)

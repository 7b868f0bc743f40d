"""One training on images, on the embedded digits: history, going on, failure, controls."""

import numpy as np
import pytest

from experiments.augmented import images, parameters
from original_repro.training import tree_leaves


def quick(**settings):
    small = {"data": "mnist_sample_half", "filters": 4, "extra": 1, "examples": 60, "test_examples": 20}
    return images.task(**{**small, "batch_size": 30, "epochs": 2, **settings})


def test_a_training_has_a_history_and_goes_on_from_its_checkpoint(tmp_path):
    whole = images.train(quick(), tmp_path / "whole.npz", progress=False)
    assert whole["failed"] is None and [record["epoch"] for record in whole["history"]] == [1, 2]
    for record in whole["history"]:
        assert record["train"].keys() == {"loss", "accuracy", "nfe_forward", "nfe_backward"}
        assert 0 <= record["evaluation"]["accuracy"] <= 1 and record["evaluation"]["nfe_forward"] >= 8
    assert whole["parameters"] == (3 * 4 + 4) + (9 * 5 * 4 + 4) + (5 * 2 + 2) + 14 * 14 * 2 * 10 + 10
    again = images.train(quick(), tmp_path / "whole.npz", progress=False)
    for one, other in zip(tree_leaves(whole["params"]), tree_leaves(again["params"]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_records_of_so_many_steps_and_the_controls(tmp_path):
    own = images.train(quick(steps=1, readout="own", epochs=1), tmp_path / "own.npz", progress=False)
    assert own["history"][0]["steps"] == 1 and own["params"]["head"]["weight"].shape == (14 * 14, 10)
    linear = images.train(quick(linear=True), tmp_path / "linear.npz", progress=False)
    assert linear["parameters"] == 14 * 14 * 10 + 10 and "nfe_forward" not in linear["history"][0]["evaluation"]


def test_a_solve_that_fails_is_a_result_with_the_history_until_then(tmp_path, monkeypatch):
    made = images.model_of

    def fails_later(task, shape):
        model, params = made(task, shape)
        calls, work = [], model.value_and_grad

        def value_and_grad(params, *batch):
            calls.append(1)
            if len(calls) == 4:
                raise images.SolverError("step size underflow")
            return work(params, *batch)

        model.value_and_grad = value_and_grad
        return model, params

    monkeypatch.setattr(images, "model_of", fails_later)
    result = images.train(quick(), tmp_path / "failing.npz", progress=False)
    assert (
        result["failed"] == {"after_records": 1, "kind": "solve", "reason": "step size underflow; at epoch 2, step 4"}
        and len(result["history"]) == 1
    )


def test_a_loss_that_is_not_finite_is_no_failed_solve(tmp_path, monkeypatch):
    made = images.model_of

    def not_finite(task, shape):
        model, params = made(task, shape)
        work = model.value_and_grad
        model.value_and_grad = lambda *arguments: ({**work(*arguments)[0], "loss": float("nan")}, work(*arguments)[1])
        return model, params

    monkeypatch.setattr(images, "model_of", not_finite)
    failed = images.train(quick(), tmp_path / "failing.npz", progress=False)["failed"]
    assert failed["kind"] == "loss" and failed["after_records"] == 0


def test_sizes_and_classes_follow_the_images():
    assert images.sizes("tiny_imagenet") == {"node": (164, 0), "anode": (64, 5)} and images.sizes("svhn")["anode"] == (64, 10)
    linear = images.task(data="tiny_imagenet", linear=True)
    assert images.model_of(linear, (8, 8, 3))[1]["weight"].shape == (8 * 8 * 3, 200)


@pytest.mark.parametrize(
    "settings, message", [({"data": "letters"}, "data must be one of mnist"), ({"batch": 1}, "has no batch")]
)
def test_tasks_of_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        images.task(**settings)


def test_counts_of_parameters_are_the_papers():
    metrics, _ = parameters.measure(None, None)
    for name, size in parameters.SIZES.items():
        assert size.published in (f"{metrics[name]:,}", f"{metrics[name] // 1000} thousand")
        assert metrics[f"{name}_field"] + metrics[f"{name}_head"] == metrics[name] < metrics[f"{name}_with_time"]


def test_parameters_are_counted_with_and_without_time(tmp_path):
    task = quick(epochs=1)
    result = images.train(task, tmp_path / "one.npz", progress=False)
    # Nine weights and one for each of the filters in the 3 x 3 convolution, one for each output of the two others.
    assert result["parameters"] - result["parameters_without_time"] == 9 * 4 + 4 + 2 and result["examples"] == 20

import itertools
import math

import numpy as np
import pytest

from original_repro.training import constant, fit, load_checkpoint, minibatches, one_cycle, sgd
from solvers_bridge import SolverError
from tests.training_runs import assert_same_run, same_bits, small_run, squares


def test_fit_learns_and_says_how():
    params, history = small_run(epochs=40, schedule=one_cycle(0.2, 240), augment=None)
    np.testing.assert_allclose(params["w"], [1.0, -2.0, 0.5], atol=1e-2)
    assert [record["epoch"] for record in history] == list(range(1, 41))
    assert [record["steps"] for record in history] == list(range(6, 241, 6))
    first, last = history[0], history[-1]
    assert last["train"]["loss"] < 1e-2 * first["train"]["loss"] and last["train"]["nfe_forward"] == 3
    assert last["learning_rate"] == one_cycle(0.2, 240)(239)
    assert last["evaluation"]["norm"] == np.linalg.norm(params["w"])
    assert all(record["wall_seconds"] > 0 for record in history)


def test_fit_visits_every_example_once_an_epoch_in_a_new_order_and_averages_over_examples():
    seen = []

    def spy(params, index):
        seen.append(index.tolist())
        return {"loss": np.mean(index)}, [np.zeros(1)]

    arguments = dict(
        params=[np.zeros(1)],
        optimiser=sgd(),
        schedule=constant(0.1),
        epochs=2,
        seed=0,
        progress=False,
    )
    _, history = fit(spy, batches=minibatches((np.arange(10.0),), 4, drop_last=False), **arguments)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    epochs = [sum(seen[:3], []), sum(seen[3:], [])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10)) and epochs[0] != epochs[1]
    assert [record["train"]["loss"] for record in history] == [4.5, 4.5]
    seen.clear()
    fit(spy, batches=minibatches((np.arange(10.0),), 4), **arguments)
    assert [len(batch) for batch in seen] == [4, 4] * 2


def test_fit_leaves_its_arguments_alone_and_the_seed_decides():
    params = {"w": np.zeros(3), "b": np.zeros(())}
    assert_same_run(small_run(params=params), small_run())
    assert same_bits(params, {"w": np.zeros(3), "b": np.zeros(())})
    assert not same_bits(small_run(seed=8)[0], small_run()[0])


@pytest.mark.parametrize("bad, where", [(math.nan, "loss"), (-math.inf, "loss"), (math.inf, "gradient")])
def test_what_is_not_finite_stops_the_run_before_the_weights_are_touched(tmp_path, bad, where):
    calls = itertools.count(1)

    def breaks(params, *batch):
        metrics, grads = squares(params, *batch)
        if next(calls) == 9:
            metrics, grads = (metrics | {"loss": bad}, grads) if where == "loss" else (metrics, grads | {"b": np.array(bad)})
        return metrics, grads

    with pytest.raises(FloatingPointError, match=f"{where}.*epoch 2, step 9"):
        small_run(tmp_path / "c", breaks)
    assert load_checkpoint(tmp_path / "c")["run"]["step"] == 8
    assert_same_run(small_run(tmp_path / "c"), small_run())


@pytest.mark.parametrize(
    "changes, error, name",
    [
        (dict(params={"w": np.zeros(3, int)}), TypeError, "params"),
        (dict(params=[1.0]), TypeError, "params"),
        (dict(params={"w": None}), TypeError, "params"),
        (dict(params={"w": 3}), TypeError, "params"),
        (dict(batches=(np.ones(3),)), TypeError, "batches"),
        (dict(epochs=0), ValueError, "epochs"),
        (dict(epochs=1.5), ValueError, "epochs"),
        (dict(seed=None), ValueError, "seed"),
        (dict(seed=-1), ValueError, "seed"),
        (dict(checkpoint_every=0), ValueError, "checkpoint_every"),
        (dict(checkpoint_seconds=0), ValueError, "checkpoint_seconds"),
        (dict(configuration={"f": print}), TypeError, "configuration"),
        (dict(function=lambda params, *batch: ({}, params)), ValueError, "value_and_grad_fn"),
    ],
)
def test_senseless_arguments_are_refused_by_name(tmp_path, changes, error, name):
    with pytest.raises(error, match=name):
        small_run(tmp_path / "c", **changes)
    assert not (tmp_path / "c").exists()


def test_metrics_must_not_come_and_go():
    calls = itertools.count()
    with pytest.raises(ValueError, match="value_and_grad_fn must give the same metrics"):
        small_run(function=lambda params, *batch: ({"loss": 1.0, f"m{next(calls)}": 2}, params))


@pytest.mark.parametrize("error", [ValueError("y0 must be finite"), FloatingPointError("overflow"), SolverError("no end")])
@pytest.mark.parametrize("of_evaluation", [False, True])
def test_a_training_that_diverges_says_at_which_epoch_and_step(error, of_evaluation):
    def fails(*arguments):
        raise error

    kind = FloatingPointError if isinstance(error, ValueError) else type(error)
    where = "the evaluation after step 12" if of_evaluation else "epoch 2, step 9"
    with pytest.raises(kind, match=where) as caught:
        if of_evaluation:
            small_run(evaluate=from_call(2, fails, lambda params: {}))
        else:
            small_run(function=from_call(9, fails, squares))
    assert str(error) in str(caught.value)


def test_arguments_refused_at_the_first_step_are_no_divergence():
    def refuses(*arguments):
        raise ValueError("method must be one of adams")

    with pytest.raises(ValueError, match="^method must be one of adams$"):
        small_run(function=refuses)


def from_call(count, then, before):
    """`before`, and from its call number `count` on `then`."""
    calls = itertools.count(1)
    return lambda *arguments: (then if next(calls) >= count else before)(*arguments)

"""Optimisers against hand-written and TensorFlow's arithmetic; checkpoints and resumed runs bit for bit."""

import copy
import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from original_repro import training
from original_repro.training import (
    CheckpointError,
    adam,
    constant,
    fit,
    load_checkpoint,
    load_weights,
    minibatches,
    one_cycle,
    piecewise,
    random_crops,
    rmsprop,
    save_checkpoint,
    save_weights,
    sgd,
    tree_leaves,
    tree_map,
    warmup_cosine,
)

OPTIMISERS = {
    "sgd": sgd(),
    "plain sgd": sgd(momentum=0.0),
    "nesterov": sgd(nesterov=True, weight_decay=0.1),
    "adam": adam(),
    "rmsprop": rmsprop(),
    "rmsprop with momentum": rmsprop(momentum=0.8),
}


def same_bits(left, right):
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_bits, left, right))
    if isinstance(left, (np.ndarray, np.generic)):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return left == right


# Nested parameters


def test_tree_map_keeps_the_nesting():
    tree = {"a": [np.ones(2), (np.zeros(1),)], "b": {}, "c": np.float64(2)}
    doubled = tree_map(lambda x, y: x + y, tree, tree)
    assert same_bits(doubled, {"a": [np.full(2, 2.0), (np.zeros(1),)], "b": {}, "c": np.float64(4)})
    assert [leaf.tolist() for leaf in tree_leaves(tree)] == [[1, 1], [0], 2]


@pytest.mark.parametrize("other", [[1, 2], (1,), {"a": 1, "b": 2}, 1])
def test_tree_map_refuses_another_nesting(other):
    with pytest.raises(ValueError, match="nestings differ"):
        tree_map(lambda x, y: x, (1, 2), other)


# Optimisers


def steps_of(optimiser, params, gradients, rates):
    state = optimiser.init(params)
    for grads, rate in zip(gradients, rates, strict=True):
        params, state = optimiser.update(grads, state, params, rate)
        yield params


def test_plain_sgd_on_a_parabola_decays_geometrically():
    p, optimiser = {"p": np.array([1.0, -4.0])}, sgd(momentum=0.0)
    state = optimiser.init(p)
    for _ in range(20):
        p, state = optimiser.update({"p": p["p"]}, state, p, 0.25)  # the gradient of p²/2
    np.testing.assert_allclose(p["p"], 0.75**20 * np.array([1.0, -4.0]), rtol=1e-13)


def test_sgd_momentum_sums_a_constant_gradient_as_a_geometric_series():
    n, mu = 12, 0.9
    *_, p = steps_of(sgd(momentum=mu), [np.zeros(1)], [[np.ones(1)]] * n, [0.5] * n)
    velocities = [(1 - mu**k) / (1 - mu) for k in range(1, n + 1)]
    np.testing.assert_allclose(p[0], -0.5 * sum(velocities), rtol=1e-13)


def test_sgd_applies_a_cut_in_the_rate_to_the_velocity_it_already_has():
    first, second = steps_of(sgd(momentum=0.5), [np.zeros(1)], [[np.ones(1)], [np.zeros(1)]], [1.0, 0.1])
    np.testing.assert_allclose(second[0] - first[0], -0.1 * 0.5, rtol=1e-14)


def test_sgd_weight_decay_is_a_gradient_of_half_the_square():
    (p,) = steps_of(sgd(weight_decay=0.5), np.array([2.0]), [np.array([1.0])], [0.1])
    np.testing.assert_allclose(p, 2.0 - 0.1 * (1.0 + 0.5 * 2.0))


def test_adam_moves_by_the_rate_while_the_gradient_is_constant():
    steps = list(steps_of(adam(epsilon=0.0), np.zeros(3), [np.array([1e-3, -5.0, 7e4])] * 5, [0.01] * 5))
    for k, p in enumerate(steps, 1):
        np.testing.assert_allclose(p, -0.01 * k * np.array([1, -1, 1]), rtol=1e-12)


def test_adam_follows_algorithm_1():
    gradients, rates = [0.3, -2.0, 0.0, 1e-4, 5.0], [0.1, 0.1, 0.05, 0.2, 0.1]
    theta, m, v, expected = 1.5, 0.0, 0.0, []
    for t, (g, alpha) in enumerate(zip(gradients, rates), 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        theta -= alpha * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 1e-3)
        expected.append(theta)
    got = list(steps_of(adam(0.8, 0.9, 1e-3), np.array(1.5), [np.array(g) for g in gradients], rates))
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_rmsprop_settles_on_the_rate_where_the_gradient_is_constant():
    *_, before, after = steps_of(rmsprop(epsilon=0.0), np.zeros(2), [np.array([3.0, -0.01])] * 400, [0.02] * 400)
    np.testing.assert_allclose(after - before, [-0.02, 0.02], rtol=1e-10)


@pytest.mark.parametrize(
    "ours, theirs",
    [  # constants that are exact in float32, in which Keras keeps them
        (sgd(0.875), ("SGD", dict(momentum=0.875))),
        (sgd(0.0), ("SGD", {})),
        (sgd(0.75, nesterov=True), ("SGD", dict(momentum=0.75, nesterov=True))),
        (adam(0.875, 0.9375, 2**-40), ("Adam", dict(beta_1=0.875, beta_2=0.9375, epsilon=2**-40))),  # Keras's epsilon is scaled
        (rmsprop(0.875, epsilon=2**-20), ("RMSprop", dict(rho=0.875, epsilon=2**-20))),
        (rmsprop(0.9375, momentum=0.75, epsilon=2**-10), ("RMSprop", dict(rho=0.9375, momentum=0.75, epsilon=2**-10))),
    ],
)
def test_agrees_with_keras(ours, theirs):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(1)
    start = rng.normal(size=(3, 4))
    gradients = [rng.normal(size=(3, 4)) for _ in range(10)]
    variable = tf.Variable(start)
    reference = getattr(tf.keras.optimizers, theirs[0])(learning_rate=0.03125, **theirs[1])
    for ours_now, gradient in zip(steps_of(ours, start, gradients, [0.03125] * 10), gradients):
        reference.apply_gradients([(tf.constant(gradient), variable)])
        np.testing.assert_allclose(ours_now, variable.numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimiser_is_pure_and_keeps_dtypes_shapes_and_nesting(optimiser):
    params = {"w": np.ones((2, 3), np.float32), "b": [np.ones(2), (np.float32(1) * np.ones((), np.float32),)], "none": []}
    grads = tree_map(lambda p: np.full(p.shape, 0.5), params)  # float64 gradients do not widen float32 weights
    state = optimiser.init(params)
    before = copy.deepcopy((params, grads, state))
    new_params, new_state = optimiser.update(grads, state, params, np.float64(0.1))
    assert same_bits((params, grads, state), before)
    again = optimiser.update(grads, state, params, np.float64(0.1))
    assert same_bits((new_params, new_state), again)
    for old, new in zip(tree_leaves(params), tree_leaves(new_params), strict=True):
        assert isinstance(new, np.ndarray) and (new.dtype, new.shape) == (old.dtype, old.shape)
        assert np.all(new < old)
        assert not any(np.shares_memory(new, other) for other in tree_leaves((params, grads)))
    for array in tree_leaves(new_state):
        assert not isinstance(array, np.ndarray) or array.dtype in (np.float32, np.float64)
    tree_map(lambda *leaves: None, params, new_params)


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimiser_gives_arrays_in_c_order(optimiser):
    params, grads = [np.ones((4, 3), order="F")], [np.ones((4, 3), order="F")]
    new_params, new_state = optimiser.update(grads, optimiser.init(params), params, 0.1)
    for array in tree_leaves((new_params, new_state)):
        assert not isinstance(array, np.ndarray) or array.flags.c_contiguous


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimiser_refuses_gradients_of_another_shape(optimiser):
    params = [np.ones((2, 3))]
    with pytest.raises(ValueError, match="grads"):
        optimiser.update([np.ones((1, 3))], optimiser.init(params), params, 0.1)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: sgd(momentum=1.0), "momentum"),
        (lambda: sgd(weight_decay=-1), "weight_decay"),
        (lambda: adam(beta1=-0.1), "beta1"),
        (lambda: adam(beta2=math.nan), "beta2"),
        (lambda: rmsprop(decay=2), "decay"),
        (lambda: rmsprop(epsilon=math.inf), "epsilon"),
        (lambda: constant(-1.0), "rate"),
        (lambda: piecewise([1, 2], []), "rates"),
        (lambda: piecewise([1, 2, 3], [5, 5]), "cuts"),
        (lambda: warmup_cosine(0.1, 10, 10), "warmup_steps"),
        (lambda: one_cycle(0.1, 10, 1.0), "warmup_fraction"),
        (lambda: one_cycle(0.1, 3), "total_steps"),
    ],
)
def test_senseless_constants_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()


# Schedules


def test_constant_and_piecewise():
    assert constant(0.3)(0) == constant(0.3)(10**6) == 0.3
    assert [piecewise([1, 0.1, 0.01], [2, 4])(step) for step in range(6)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_warmup_cosine():
    rates = [warmup_cosine(0.8, 20, 4)(step) for step in range(21)]
    np.testing.assert_allclose(rates[:5], [0.16, 0.32, 0.48, 0.64, 0.8])
    np.testing.assert_allclose([rates[8], rates[12], rates[20]], [0.8 * (2 + math.sqrt(2)) / 4, 0.4, 0.0], atol=1e-16)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert warmup_cosine(0.8, 20, 4)(25) == pytest.approx(0.0, abs=1e-16)
    assert warmup_cosine(0.8, 20)(0) == 0.8


def test_one_cycle():
    rates = [one_cycle(1.0, 100, 0.31, start_factor=20, final_factor=50)(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05) and rates[30] == pytest.approx(1.0) and rates[99] == pytest.approx(0.001)
    assert rates[15] == pytest.approx((1 + 0.05) / 2)
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[:31]))
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[30:]))


# Batches


def test_minibatches_partition_the_order():
    order = np.random.default_rng(0).permutation(10)
    assert [batch.tolist() for batch in minibatches(order, 4)] == [order[:4].tolist(), order[4:8].tolist()]
    np.testing.assert_array_equal(np.concatenate(minibatches(order, 4, drop_last=False)), order)
    assert [len(batch) for batch in minibatches(order, 5)] == [5, 5]
    assert [len(batch) for batch in minibatches(order, 20, drop_last=False)] == [10]
    for size in (0, 11):
        with pytest.raises(ValueError, match="batch_size"):
            minibatches(order, size)


@pytest.mark.parametrize("trailing", [(), (1,), (3,)])
def test_random_crops_are_crops_of_the_padded_image_each_by_its_own_draw(trailing):
    images = np.random.default_rng(0).integers(1, 256, (400, 5, 7, *trailing), np.uint8)
    images[:] = images[:1]
    kept = images.copy()
    cropped = random_crops(images, np.random.default_rng(1), padding=2)
    assert cropped.dtype == images.dtype and cropped.shape == images.shape
    np.testing.assert_array_equal(images, kept)
    padded = np.pad(images[0], [(2, 2), (2, 2)] + [(0, 0)] * len(trailing))
    possible = {padded[top : top + 5, left : left + 7].tobytes(): (top, left) for top in range(5) for left in range(5)}
    counts = dict.fromkeys(possible.values(), 0)
    for image in cropped:
        counts[possible[image.tobytes()]] += 1
    assert min(counts.values()) > 4  # 16 expected of each of the 25, and 5 or more all but surely


def test_random_crops_follow_the_generator():
    images = np.arange(2 * 36, dtype=np.float32).reshape(2, 6, 6)
    first, second, other = (random_crops(images, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
    np.testing.assert_array_equal(random_crops(images, np.random.default_rng(3), padding=0), images)
    with pytest.raises(ValueError, match="images"):
        random_crops(images[0], np.random.default_rng(3))
    with pytest.raises(ValueError, match="padding"):
        random_crops(images, np.random.default_rng(3), padding=-1)


# Checkpoints

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex128, ">f4"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
numbers = st.one_of(
    st.builds(np.float32, st.floats(width=32)), st.builds(np.float64, st.floats()), st.builds(np.int16, st.integers(-9, 9))
)
states = st.recursive(
    plain | arrays | numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
)


@settings(max_examples=40, deadline=None)
@given(state=states)
def test_checkpoint_round_trip_is_exact(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("checkpoint") / "any name"
    save_checkpoint(path, state)
    assert same_bits(load_checkpoint(path), state)
    assert [entry.name for entry in path.parent.iterdir()] == ["any name"]


def test_checkpoint_keeps_every_bit_of_what_is_not_a_number(tmp_path):
    bits = [0xFFF8000000000123, 0x7FF8000000000001, 0x8000000000000000, 0x7FF0000000000000, 1]
    odd = np.array(bits, np.uint64).view(np.float64)
    state = {"history": [{"loss": value} for value in odd.tolist()], "weights": odd, "generator": 2**127 + 1}
    save_checkpoint(tmp_path / "c.npz", state)
    assert same_bits(load_checkpoint(tmp_path / "c.npz"), state)


def test_checkpoint_keeps_memory_order(tmp_path):
    save_checkpoint(tmp_path / "c.npz", [np.asfortranarray(np.eye(3)[:, :2]), np.ones((2, 3))])
    fortran, c = load_checkpoint(tmp_path / "c.npz")
    assert fortran.flags.f_contiguous and c.flags.c_contiguous


@pytest.mark.parametrize(
    "state", [{"f": print}, [np.array([object()])], {(1, 2): 3}, {1.5: 2}, {b"bytes"}, b"bytes", np.zeros(2, [("x", float)])]
)
def test_checkpoint_refuses_what_it_could_not_give_back(tmp_path, state):
    with pytest.raises(TypeError, match="state must hold"):
        save_checkpoint(tmp_path / "c.npz", state)
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, {"weights": np.arange(50.0), "loss": 0.5})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="c.npz"):
            load_checkpoint(path)


def test_flipped_bits_never_pass_for_the_truth(tmp_path):
    path = tmp_path / "c.npz"
    state = {"weights": np.arange(50.0), "loss": 0.5}
    save_checkpoint(path, state)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert same_bits(load_checkpoint(path), state)  # a date in the archive's directory may differ
        except CheckpointError as error:
            assert "c.npz" in str(error)


def foreign_files():
    plain_array, archive, other_format, pickled = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain_array, np.ones(3))
    np.savez(archive, weights=np.ones(3))
    structure = json.dumps({"format": "version 0", "state": None}).encode()
    np.savez(other_format, structure=np.frombuffer(structure, np.uint8), floats=np.zeros(0))
    np.savez(pickled, structure=np.array([{}], object), floats=np.zeros(0))
    return [b"", b"Dear diary", plain_array.getvalue(), archive.getvalue(), other_format.getvalue(), pickled.getvalue()]


@pytest.mark.parametrize("content", foreign_files(), ids=["empty", "text", "npy", "npz", "other format", "pickle"])
def test_foreign_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="c.npz"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="c.npz"):
        small_run(tmp_path / "c.npz")
    assert path.read_bytes() == content


def test_missing_checkpoint_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="c.npz"):
        load_checkpoint(tmp_path / "c.npz")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_save_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError("the disk is full")

    save_checkpoint(tmp_path / "c.npz", 1)
    monkeypatch.setattr(training.os, failing, fail)
    with pytest.raises(OSError, match="disk is full"):
        save_checkpoint(tmp_path / "c.npz", 2)
    assert load_checkpoint(tmp_path / "c.npz") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


# Weights


def test_weights_come_back_as_float32_in_their_nesting(tmp_path):
    rng = np.random.default_rng(12)
    params = {
        "stem": {"weight": rng.normal(size=(2, 3)), "bias": np.zeros(())},
        "blocks": [{"scale": np.full(1, float(i))} for i in range(11)],
        "pair": (np.ones(1), [np.ones(2)]),
    }
    path = tmp_path / "weights" / "w.npz"
    save_weights(path, params)
    expected = tree_map(lambda leaf: leaf.astype(np.float32), params | {"pair": list(params["pair"])})
    assert same_bits(load_weights(path), expected)
    with np.load(path) as arrays:
        assert {"stem/weight", "blocks/10/scale", "pair/1/0"} < set(arrays.files)
    assert [file.name for file in path.parent.iterdir()] == ["w.npz"]


@pytest.mark.parametrize("params", [np.ones(1), {}, {"a": []}, {"a/b": np.ones(1)}, {"1": np.ones(1)}, {1: np.ones(1)}])
def test_weights_that_would_not_come_back_are_refused(tmp_path, params):
    with pytest.raises(ValueError, match="params"):
        save_weights(tmp_path / "w.npz", params)
    assert not (tmp_path / "w.npz").exists()


def test_damaged_weights_are_refused(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": np.ones(1000)})
    content = (tmp_path / "w.npz").read_bytes()
    for damaged in (content[:-20], b"weights", b""):
        (tmp_path / "w.npz").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="w.npz is not a whole file of weights"):
            load_weights(tmp_path / "w.npz")


# The loop


def squares(params, x, y):
    """Least squares: a metric of each kind, and the gradient."""
    error = x @ params["w"] + params["b"] - y
    metrics = {"loss": np.mean(error**2), "accuracy": float(np.mean(np.abs(error) < 1)), "nfe_forward": 3}
    return metrics, {"w": 2 * x.T @ error / len(x), "b": np.array(2 * error.mean())}


def noisy(batch, rng):
    x, y = batch
    return x + 0.1 * rng.normal(size=x.shape), y


def norm(params):
    return {"norm": np.linalg.norm(params["w"]), "odd": math.nan}


def small_run(checkpoint=None, function=squares, **changes):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(23, 3))
    arguments = dict(
        params={"w": np.zeros(3), "b": np.zeros(())},
        data=(x, x @ [1.0, -2.0, 0.5] + 0.3),
        optimiser=adam(),
        schedule=one_cycle(0.2, 24),
        epochs=4,
        batch_size=4,
        seed=7,
        drop_last=False,
        augment=noisy,
        evaluate=norm,
        checkpoint=checkpoint,
        checkpoint_every=2,
        configuration={"network": {"width": 3}, "name": "small"},
        progress=False,
    )
    return fit(function, **(arguments | changes))


def without_times(history):
    return [{name: value for name, value in record.items() if name != "wall_seconds"} for record in history]


def assert_same_run(got, expected):
    assert same_bits(got[0], expected[0])
    assert same_bits(without_times(got[1]), without_times(expected[1]))


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
        data=(np.arange(10.0),),
        optimiser=sgd(),
        schedule=constant(0.1),
        epochs=2,
        batch_size=4,
        seed=0,
        progress=False,
    )
    _, history = fit(spy, drop_last=False, **arguments)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    epochs = [sum(seen[:3], []), sum(seen[3:], [])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10)) and epochs[0] != epochs[1]
    assert [record["train"]["loss"] for record in history] == [4.5, 4.5]
    seen.clear()
    fit(spy, **arguments)
    assert [len(batch) for batch in seen] == [4, 4] * 2


def test_fit_leaves_its_arguments_alone_and_the_seed_decides():
    params = {"w": np.zeros(3), "b": np.zeros(())}
    assert_same_run(small_run(params=params), small_run())
    assert same_bits(params, {"w": np.zeros(3), "b": np.zeros(())})
    assert not same_bits(small_run(seed=8)[0], small_run()[0])


class Killed(BaseException):
    pass


def killed_at(count, function):
    calls = itertools.count(1)

    def wrapped(*arguments):
        if next(calls) == count:
            raise Killed
        return function(*arguments)

    return wrapped


def test_run_stopped_at_any_step_ends_the_same(tmp_path):
    expected = small_run()
    for count in range(1, 25):
        path = tmp_path / f"{count}.npz"
        with pytest.raises(Killed):
            small_run(path, killed_at(count, squares))
        calls = []

        def counted(*arguments):
            calls.append(1)
            return squares(*arguments)

        assert_same_run(small_run(path, counted), expected)
        assert len(calls) <= 24 - (count - 1) + 1  # at most checkpoint_every - 1 steps are done again


def test_run_stopped_in_any_evaluation_or_save_ends_the_same(tmp_path, monkeypatch):
    expected = small_run()
    for count in range(1, 5):
        with pytest.raises(Killed):
            small_run(tmp_path / f"evaluation {count}", evaluate=killed_at(count, norm))
        assert_same_run(small_run(tmp_path / f"evaluation {count}"), expected)
    for count in range(1, 17):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(training.os, "replace", killed_at(count, os.replace))
            small_run(tmp_path / f"save {count}")
        assert_same_run(small_run(tmp_path / f"save {count}"), expected)


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_every_optimiser_resumes_exactly(tmp_path, optimiser):
    with pytest.raises(Killed):
        small_run(tmp_path / "c", killed_at(10, squares), optimiser=optimiser)
    assert_same_run(small_run(tmp_path / "c", optimiser=optimiser), small_run(optimiser=optimiser))


def test_memory_order_of_the_parameters_does_not_tell_a_resumed_run_from_another(tmp_path):
    orders = []

    def spy(params, index):
        orders.append(params[0].flags.c_contiguous and params[1].flags.c_contiguous)
        return {"loss": 1.0}, [np.ones((4, 3)).T, np.ones((2, 3, 4)).transpose(1, 0, 2)]

    params = [np.zeros((4, 3)).T, np.zeros((2, 3, 4)).transpose(1, 0, 2)]
    fit(spy, params, (np.arange(6),), optimiser=adam(), schedule=constant(0.1), epochs=2, batch_size=2, seed=0, progress=False)
    assert orders == [True] * 6


def test_finished_run_returns_at_once(tmp_path):
    finished = small_run(tmp_path / "runs" / "c.npz")
    again = small_run(tmp_path / "runs" / "c.npz", killed_at(1, squares), evaluate=killed_at(1, dict))
    assert same_bits(again, finished)


def test_checkpoint_every_so_many_seconds(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(training, "save_checkpoint", lambda path, state: saves.append(state["run"]["step"]))
    small_run(tmp_path / "c", checkpoint_every=10**6, checkpoint_seconds=1e9)
    assert saves == [6, 12, 18, 24]
    saves.clear()
    small_run(tmp_path / "c", checkpoint_every=10**6, checkpoint_seconds=1e-9)
    assert sorted(set(saves)) == list(range(1, 25))
    saves.clear()
    small_run(tmp_path / "c", checkpoint_every=4, epochs=1)
    assert saves == [4, 6]


@pytest.mark.parametrize(
    "changes, parts",
    [
        (dict(configuration={"network": {"width": 4}, "name": "small"}), ["configuration.network.width was 3 and is 4"]),
        (dict(configuration={"network": {"width": 3}}), ["configuration.name was 'small' and is absent"]),
        (dict(configuration=None), ["configuration.name was 'small' and is absent", "configuration.network"]),
        (dict(batch_size=5, seed=9), ["batch_size was 4 and is 5", "seed was 7 and is 9"]),
        (dict(epochs=5), ["epochs was 4 and is 5"]),
        (dict(drop_last=True), ["drop_last was False and is True"]),
        (dict(optimiser=adam(beta1=0.8)), ["optimiser.beta1 was 0.9 and is 0.8"]),
        (dict(optimiser=sgd()), ["optimiser.name was 'adam' and is 'sgd'"]),
        (dict(schedule=constant(0.1)), ["learning_rates[1]"]),
        (dict(params={"w": np.zeros(3, np.float32), "b": np.zeros(())}), ["params.w was 'float64 (3,)' and is 'float32 (3,)'"]),
        (dict(data=(np.ones((24, 3)), np.ones(24))), ["data[0]", "(24, 3)"]),
    ],
)
def test_resuming_with_another_configuration_says_what_differs(tmp_path, changes, parts):
    with pytest.raises(Killed):
        small_run(tmp_path / "c.npz", killed_at(9, squares))
    kept = (tmp_path / "c.npz").read_bytes()
    with pytest.raises(CheckpointError) as caught:
        small_run(tmp_path / "c.npz", **changes)
    assert all(part in str(caught.value) for part in ["c.npz", *parts])
    assert "name was 'small' and is 'small'" not in str(caught.value)
    assert (tmp_path / "c.npz").read_bytes() == kept


def test_same_configuration_is_the_same_however_it_is_written(tmp_path):
    small_run(tmp_path / "c", configuration={"sizes": (1, 2), "rate": math.nan, 3: None})
    small_run(tmp_path / "c", configuration={"3": None, "rate": math.nan, "sizes": [1, 2]})


def test_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c.npz", {"weights": np.ones(3)})
    with pytest.raises(CheckpointError, match="c.npz.*not one that fit wrote"):
        small_run(tmp_path / "c.npz")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
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
        (dict(data=np.ones((23, 3))), TypeError, "data"),
        (dict(data=()), TypeError, "data"),
        (dict(data=(np.ones(3), np.ones(4))), ValueError, "data"),
        (dict(epochs=0), ValueError, "epochs"),
        (dict(epochs=1.5), ValueError, "epochs"),
        (dict(batch_size=2.5), ValueError, "batch_size"),
        (dict(batch_size=0), ValueError, "batch_size"),
        (dict(batch_size=24, drop_last=True), ValueError, "batch_size"),
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


# What the user sees


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(training._Progress, "LINE_SECONDS", 0.0)
    small_run(progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 24 + 4 and "\r" not in shown.err
    assert lines[0].startswith("epoch 1/4, step 1/24: loss ") and "nfe_forward 3" in lines[0] and lines[0].endswith(" left")
    assert lines[-1].startswith("epoch 4/4 done in ") and "norm 2." in lines[-1] and lines[-1].endswith("00:00 left")


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    small_run(progress=True)
    assert "24/24" in terminal.getvalue() and "epoch 4/4" in terminal.getvalue() and "accuracy" in terminal.getvalue()


def test_silence_where_it_is_wanted(capsys):
    small_run()
    assert capsys.readouterr() == ("", "")


# Killed for good

PROGRAM = textwrap.dedent("""
    import itertools, pathlib, sys, time
    import numpy as np
    from original_repro.training import adam, fit, random_crops, save_checkpoint, warmup_cosine

    folder, steps_before_the_end = pathlib.Path(sys.argv[1]), itertools.count(-int(sys.argv[2]))
    rng = np.random.default_rng(11)
    images, labels = rng.integers(0, 256, (90, 8, 8), np.uint8), rng.integers(0, 10, 90)
    params = {"hidden": (rng.normal(size=(16, 64)).astype(np.float32).T / 8, np.zeros(16, np.float32)),
              "head": [rng.normal(size=(16, 10)) / 4, np.zeros(10)]}

    def value_and_grad(params, x, y):
        if next(steps_before_the_end) == 0:
            time.sleep(600)
        (w, b), (v, c) = params["hidden"], params["head"]
        x = x.reshape(len(x), -1) / np.float32(255)
        h = np.tanh(x @ w + b)
        p = np.exp(h @ v + c)
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(y))
        loss, accuracy = -np.log(p[rows, y]).mean(), (p.argmax(1) == y).mean()
        p[rows, y] -= 1
        p /= len(y)
        dh = (p @ v.T) * (1 - h**2)
        return {"loss": loss, "accuracy": accuracy}, {"hidden": (x.T @ dh, dh.sum(0)), "head": [h.T @ p, p.sum(0)]}

    print("training", flush=True)
    result = fit(value_and_grad, params, (images, labels), optimiser=adam(), schedule=warmup_cosine(0.02, 60, 5), epochs=5,
                 batch_size=8, seed=3, drop_last=False, augment=lambda batch, rng: (random_crops(batch[0], rng, 2), batch[1]),
                 evaluate=lambda params: {"size": abs(params["head"][0]).sum()},
                 checkpoint=folder / "run.npz", checkpoint_every=2, configuration={"program": "digits"}, progress=False)
    save_checkpoint(folder / "result.npz", result)
""")


def start(folder, steps=1000):
    """The program as a process, begun to train; after so many steps it waits to be killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(training.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(steps)]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"training\n"
    return program


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_and_started_again_gives_the_same_weights(tmp_path):
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    alone.mkdir()
    stopped.mkdir()
    with start(alone) as program:
        assert program.wait(60) == 0
    # Eight steps at most each time, so that none of the seven comes to the end of the 60, however late the kill.
    moments, steps = random.Random(), []
    for last in [False] * 6 + [True]:
        with start(stopped, 8) as program:
            time.sleep(moments.uniform(0.0, 0.05))
            while last and not (stopped / "run.npz").exists():
                time.sleep(0.01)
            program.kill()
            assert program.wait(60) == -signal.SIGKILL
        if (stopped / "run.npz").exists():
            steps.append(load_checkpoint(stopped / "run.npz")["run"]["step"])
    assert steps == sorted(steps) and any(0 < step < 60 for step in steps)
    with start(stopped) as program:
        assert program.wait(60) == 0
    assert_same_run(load_checkpoint(stopped / "result.npz"), load_checkpoint(alone / "result.npz"))
    assert sorted(path.name for path in stopped.iterdir()) == ["result.npz", "run.npz"]


def test_gradients_are_clipped_together_to_a_norm():
    grads = {"a": np.array([3.0, 0.0]), "b": [np.array(4.0, np.float32)]}
    clipped = training.clip_norm(grads, 2.5)
    np.testing.assert_allclose(clipped["a"], [1.5, 0.0])
    assert clipped["b"][0] == 2.0 and clipped["b"][0].dtype == np.float32
    assert training.clip_norm(grads, 5.0) is grads
    with pytest.raises(ValueError, match="limit must be above 0; got 0"):
        training.clip_norm(grads, 0)

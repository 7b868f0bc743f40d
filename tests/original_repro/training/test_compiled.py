import numpy as np
import pytest
import tensorflow as tf

from original_repro import training
from original_repro.training.compiled import rmsprop_chunk

TARGET = np.array([1.0, -2.0, 3.0], np.float32)


def noisy_loss(params, seed):
    noise = tf.random.stateless_normal((3,), seed, alg="philox")
    return tf.reduce_sum((params["x"] - TARGET + noise) ** 2) + params["y"][0] ** 4


def start():
    return {"x": np.zeros(3, np.float32), "y": [np.float32(0.5) * np.ones((), np.float32)]}


@pytest.mark.parametrize("momentum", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_compiled_steps_are_those_of_rmsprop(momentum):
    advance = rmsprop_chunk(lambda params, seed: noisy_loss(params, seed * 0), 7, decay=0.8, momentum=momentum)
    optimiser = training.rmsprop(0.8, momentum)
    params = start()
    ours, state, mean = advance(params, optimiser.init(params), 0, 0.05, 3)
    one_loss = tf.function(noisy_loss, jit_compile=True)
    losses, expected, expected_state = [], params, optimiser.init(params)
    for _ in range(7):
        tensors = training.tree_map(tf.constant, expected)
        with tf.GradientTape() as tape:
            tape.watch(tf.nest.flatten(tensors))
            loss = one_loss(tensors, tf.zeros(2, tf.int32))
        losses.append(float(loss))
        grads = training.tree_map(lambda tensor: tensor.numpy(), tape.gradient(loss, tensors))
        expected, expected_state = optimiser.update(grads, expected_state, expected, 0.05)
    for one, other in zip(training.tree_leaves([ours, state]), training.tree_leaves([expected, expected_state]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mean, np.mean(losses), rtol=1e-5)


def fit(checkpoint=None, advance=None, epochs=3, seed=1, **changes):
    optimiser = training.rmsprop()
    return training.fit_in_chunks(
        advance or CHUNK,
        start(),
        **{
            "optimiser": optimiser,
            "schedule": training.warmup_cosine(0.1, 40 * max(epochs, 1)),
            "epochs": epochs,
            "chunks": 2,
            "chunk_steps": 20,
            "seed": seed,
            "checkpoint": checkpoint,
            "checkpoint_seconds": 1e-9,
            "progress": False,
            **changes,
        },
    )


CHUNK = rmsprop_chunk(noisy_loss, 20)


def test_a_fit_in_chunks_learns_and_says_what_it_did():
    params, history = fit(epochs=10, evaluate=lambda params: {"first": params["x"][0]})
    np.testing.assert_allclose(params["x"], TARGET, atol=0.5)
    assert [row["steps"] for row in history] == list(range(40, 401, 40))
    assert history[-1]["train"]["loss"] < 0.5 * history[0]["train"]["loss"]
    assert history[-1]["evaluation"] == {"first": float(params["x"][0])}
    assert history[-1]["learning_rate"] == training.warmup_cosine(0.1, 400)(380)


def test_each_step_has_random_numbers_of_its_own_that_the_seed_decides():
    _, history = fit()
    _, again = fit()
    _, other = fit(seed=2)
    assert [row["train"] for row in history] == [row["train"] for row in again]
    assert history[0]["train"] != other[0]["train"]
    losses = {fit(schedule=training.constant(0.0), epochs=1, chunks=n)[1][0]["train"]["loss"] for n in (1, 2, 3)}
    assert len(losses) == 3  # the same parameters throughout: other noise in the second chunk and the third


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_stopped_fit_goes_on_to_the_same_end_bit_for_bit(tmp_path, stop_after):
    calls = []

    def stopping(*arguments):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(arguments)
        return CHUNK(*arguments)

    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        fit(path, stopping)
    params, history = fit(path)
    alone, history_alone = fit()
    for one, other in zip(training.tree_leaves(params), training.tree_leaves(alone), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [{**row, "wall_seconds": 0} for row in history] == [{**row, "wall_seconds": 0} for row in history_alone]
    assert fit(path, lambda *arguments: pytest.fail("a finished run trains no more"))[1] == history


def test_another_configuration_and_parameters_that_are_not_finite_are_errors(tmp_path):
    fit(tmp_path / "run.npz")
    with pytest.raises(training.CheckpointError, match="seed was 1 and is 2"):
        fit(tmp_path / "run.npz", seed=2)
    with pytest.raises(FloatingPointError, match="epoch 1, before step 21"):
        fit(advance=lambda params, state, *_: (training.tree_map(lambda p: p * np.float32(np.nan), params), state, 1.0))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        fit(advance=lambda params, state, *_: (params, state, float("nan")))


@pytest.mark.parametrize("name", ["epochs", "chunks", "chunk_steps"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 1"):
        fit(**{"schedule": training.constant(0.1), name: 0})
    with pytest.raises(ValueError, match="steps must be a whole number from 1"):
        rmsprop_chunk(noisy_loss, 0)


@pytest.mark.parametrize("seed", [2**31, 2**32 + 9])
def test_seeds_that_would_draw_as_others_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be at least 0 and below 2.*got {seed}"):
        fit(seed=seed)


def test_steps_that_would_draw_as_others_are_refused():
    params = start()
    with pytest.raises(ValueError, match="first_step"):
        CHUNK(params, training.rmsprop().init(params), 2**31 - 20, 0.1, 0)

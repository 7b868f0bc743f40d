"""Optimisers against hand-written arithmetic and TensorFlow's."""

import copy
import math

import numpy as np
import pytest

from original_repro.training import adam, clip_norm, rmsprop, sgd, tree_leaves, tree_map
from tests.training_runs import OPTIMISERS, same_bits


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
    params = {"w": np.ones((2, 3), np.float32, "F"), "b": [np.ones(2), (np.float32(1) * np.ones((), np.float32),)], "none": []}
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
        assert new.flags.c_contiguous
    for array in tree_leaves(new_state):
        assert array.dtype in (np.float32, np.float64) and array.flags.c_contiguous
    tree_map(lambda *leaves: np.zeros(1), params, new_params)


def test_gradients_of_another_shape_or_nesting_are_refused():
    params, optimiser = [np.ones((2, 3))], adam()
    for grads in ([np.ones((1, 3))], np.ones((2, 3))):
        with pytest.raises(ValueError, match="grads|nestings"):
            optimiser.update(grads, optimiser.init(params), params, 0.1)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: sgd(momentum=1.0), "momentum"),
        (lambda: sgd(weight_decay=-1), "weight_decay"),
        (lambda: adam(beta1=-0.1), "beta1"),
        (lambda: adam(beta2=math.nan), "beta2"),
        (lambda: rmsprop(decay=2), "decay"),
        (lambda: rmsprop(epsilon=math.inf), "epsilon"),
    ],
)
def test_senseless_constants_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_gradients_are_clipped_together_to_a_norm():
    grads = {"a": np.array([3.0, 0.0]), "b": [np.array(4.0, np.float32)]}
    clipped = clip_norm(grads, 2.5)
    np.testing.assert_allclose(clipped["a"], [1.5, 0.0])
    assert clipped["b"][0] == 2.0 and clipped["b"][0].dtype == np.float32
    assert clip_norm(grads, 5.0) is grads
    with pytest.raises(ValueError, match="limit must be above 0; got 0"):
        clip_norm(grads, 0)

import itertools
import math

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad, jacobian
from hypothesis import given, settings
from hypothesis import strategies as st

from original_repro import flows
from original_repro.training import tree_map
from tests.helpers import some_fast

TIGHT = {"dtype": "float64", "rtol": 1e-9, "atol": 1e-9}
TIMES = (0.0, 2.0)


def mlp_velocity(t, z, params):
    """A velocity without a trace of its own: any network of each point."""
    hidden = tf.tanh(tf.matmul(z, params["w1"]) + t * params["b1"])
    return tf.matmul(hidden, params["w2"])


def init_mlp_velocity(rng, dim=2, width=6):
    return {"w1": rng.normal(size=(dim, width)), "b1": rng.normal(size=width), "w2": rng.normal(size=(width, dim)) / width}


def doubled(params):
    """float64 and livelier than at initialisation, so that a wrong term would show."""
    return tree_map(lambda array: 1.5 * array.astype(np.float64), params)


def planar_flow_problem():
    return flows.planar_dynamics, doubled(flows.init_planar_dynamics(np.random.default_rng(0), 8, width=6))


def network_problem():
    return flows.with_trace(mlp_velocity), init_mlp_velocity(np.random.default_rng(1))


def hamiltonian_problem():
    return flows.hamiltonian_dynamics, doubled(flows.init_hamiltonian_dynamics(np.random.default_rng(2), dim=4, width=6))


# Theorem 1


@pytest.mark.parametrize(
    "problem, dim", some_fast([(planar_flow_problem, 2), (network_problem, 2), (hamiltonian_problem, 4)], (network_problem, 2))
)
def test_theorem_1_log_density_changes_by_minus_the_log_determinant_of_the_solves_jacobian(problem, dim):
    dynamics, params = problem()
    flow = flows.ContinuousFlow(dynamics, TIMES, **TIGHT)
    z = np.random.default_rng(3).normal(size=(2, dim))
    _, change = flow.solve(params, z, TIMES)
    for i, point in enumerate(z):
        derivative = jacobian(lambda point: flow.solve(params, anp.reshape(point, (1, dim)), TIMES)[0][-1, 0])(point)
        sign, log_det = np.linalg.slogdet(derivative)
        assert sign == 1
        np.testing.assert_allclose(change[-1, i], -log_det, atol=1e-6)
    if problem is hamiltonian_problem:
        np.testing.assert_array_equal(change, 0.0)  # and so the Jacobian's determinant is 1: volume is conserved
        assert np.abs(derivative - np.eye(dim)).max() > 0.1
    else:
        assert np.abs(change[-1]).max() > 0.05


@pytest.mark.parametrize("problem", [planar_flow_problem, network_problem])
def test_a_density_integrates_to_one(problem):
    dynamics, params = problem()
    flow = flows.ContinuousFlow(dynamics, TIMES, dtype="float64", rtol=1e-7, atol=1e-7)
    side = np.linspace(-9.0, 9.0, 91)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density = np.exp(flow.log_density(params, points))
    assert np.abs(density - np.exp(flows.log_normal(points))).max() > 0.005  # not the base's
    np.testing.assert_allclose(density.sum() * (side[1] - side[0]) ** 2, 1.0, atol=1e-4)


def test_sample_and_log_density_are_each_others_inverse():
    dynamics, params = planar_flow_problem()
    flow = flows.ContinuousFlow(dynamics, TIMES, **TIGHT)
    base = np.random.default_rng(4).normal(size=(20, 2))
    x, log_q = flow.sample(params, base)
    np.testing.assert_allclose(flow.log_density(params, x), log_q, atol=1e-6)
    np.testing.assert_allclose(flow.solve(params, x, TIMES[::-1])[0][-1], base, atol=1e-6)
    assert np.abs(x - base).max() > 0.1


def test_planar_dynamics_are_the_sum_of_gated_units_of_the_paper():
    params = flows.init_planar_dynamics(np.random.default_rng(5), 3, width=4)
    z, t = np.random.default_rng(6).normal(size=(5, 2)).astype(np.float32), 0.7
    layers = [params[name] for name in ("hidden1", "hidden2", "output")]
    h = np.tanh(t * layers[0]["weight"][0] + layers[0]["bias"])
    h = np.tanh(h @ layers[1]["weight"] + layers[1]["bias"])
    out = h @ layers[2]["weight"] + layers[2]["bias"]
    w, u, gate, b = out[:6].reshape(2, 3).T, out[6:12].reshape(3, 2), out[12:15], out[15:]
    expected, trace = np.zeros((5, 2)), np.zeros(5)
    for n in range(3):
        activation = np.tanh(z @ w[n] + b[n])
        sigma = 1 / (1 + np.exp(-gate[n]))
        expected += sigma * activation[:, None] * u[n] / 3
        trace += sigma * (1 - activation**2) * (u[n] @ w[n]) / 3  # equation 10: u . dh/dz
    f, divergence = flows.planar_dynamics(t, tf.constant(z), params)
    np.testing.assert_allclose(f, expected, atol=1e-6)
    np.testing.assert_allclose(divergence, trace, atol=1e-6)


# Traces


def test_the_closed_form_trace_is_that_of_automatic_differentiation():
    _, params = planar_flow_problem()
    z = tf.constant(np.random.default_rng(7).normal(size=(9, 2)))
    f, trace = flows.planar_dynamics(0.4, z, params)
    again, exact = flows.with_trace(lambda t, z, params: flows.planar_dynamics(t, z, params)[0])(0.4, z, params)
    np.testing.assert_allclose(again, f)
    np.testing.assert_allclose(exact, trace, atol=1e-12)


def test_hutchinsons_mean_over_all_rademacher_signs_is_the_exact_trace():
    params = init_mlp_velocity(np.random.default_rng(8), dim=3)
    z = tf.constant(np.random.default_rng(9).normal(size=(4, 3)))
    _, exact = flows.with_trace(mlp_velocity)(0.2, z, params)
    estimates = [
        flows.hutchinson_trace(mlp_velocity, 0.2, z, params, tf.broadcast_to(tf.constant(signs, tf.float64), z.shape))[1]
        for signs in itertools.product((-1.0, 1.0), repeat=3)
    ]
    assert np.std(estimates, axis=0).max() > 1e-3
    np.testing.assert_allclose(np.mean(estimates, axis=0), exact, atol=1e-12)


@pytest.mark.parametrize("trace", ["gaussian", "rademacher"])
def test_hutchinsons_estimate_is_unbiased(trace):
    params = init_mlp_velocity(np.random.default_rng(10), dim=3)
    point = np.random.default_rng(11).normal(size=3)
    z = tf.constant(np.tile(point, (40_000, 1)))  # one point with as many noises
    _, exact = flows.with_trace(mlp_velocity)(0.2, z[:1], params)
    _, estimates = flows.with_trace(mlp_velocity, trace)(0.2, z, (params, flows.noise_seed(np.random.default_rng(12))))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert 0 < error < 0.01
    assert abs(np.mean(estimates) - exact[0]) < 4 * error


@pytest.mark.parametrize("trace", ["gaussian", pytest.param("rademacher", marks=pytest.mark.slow)])
def test_noise_is_fixed_for_a_solve_and_its_reverse_and_varies_with_the_seed(trace):
    params = init_mlp_velocity(np.random.default_rng(13))
    flow = flows.ContinuousFlow(flows.with_trace(mlp_velocity, trace), TIMES, **TIGHT)
    base, seed = np.random.default_rng(14).normal(size=(6, 2)), np.array([3.0, 4.0])
    x, log_q = flow.sample((params, seed), base)
    np.testing.assert_allclose(flow.log_density((params, seed), x), log_q, atol=1e-6)
    assert np.abs(flow.sample((params, seed + 1), base)[1] - log_q).max() > 1e-3

    def loss(w1):
        return anp.mean(flow.sample(({**params, "w1": w1}, seed), base)[1])

    compare_with_differences(loss, params["w1"], grad(loss)(params["w1"]))


# Gradients


def compare_with_differences(loss, array, gradient, step=1e-4, tolerance=1e-5):
    rng = np.random.default_rng(15)
    for _ in range(2):
        direction = rng.normal(size=array.shape)
        difference = (loss(array + step * direction) - loss(array - step * direction)) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("which", ["kl", "nll"])
def test_gradients_of_a_continuous_flow_are_those_of_finite_differences(which):
    dynamics, params = planar_flow_problem()
    flow = flows.ContinuousFlow(dynamics, TIMES, **TIGHT)
    points = np.random.default_rng(16).normal(size=(6, 2))

    def energy(x):
        return anp.sum((x - 1.0) ** 4, 1)

    def value(params):
        if which == "nll":
            return -np.mean(flow.log_density(params, points))
        x, log_q = flow.sample(params, points)
        return np.mean(log_q + energy(x))

    metrics, grads = flow.nll_and_grad(params, points) if which == "nll" else flow.kl_and_grad(params, points, energy)
    assert metrics["nfe_forward"] > 10 and metrics["nfe_backward"] > 10
    assert metrics["loss"] == pytest.approx(value(params), rel=1e-6)
    for layer, part in (("hidden1", "weight"), ("output", "weight"), ("output", "bias")):

        def loss(array):
            return value({**params, layer: {**params[layer], part: array}})

        compare_with_differences(loss, params[layer][part], grads[layer][part])


@pytest.mark.parametrize("which", ["kl", "nll"])
def test_gradients_of_a_planar_flow_are_those_of_finite_differences(which):
    params = tree_map(lambda array: tf.constant(2.0 * array, tf.float64), flows.init_planar_flow(np.random.default_rng(17), 3))
    points = tf.constant(np.random.default_rng(18).normal(size=(6, 2)))

    def value(params):
        if which == "nll":
            return flows.planar_nll_loss(params, points)
        return flows.planar_kl_loss(params, points, lambda x: tf.reduce_sum((x - 1.0) ** 4, 1))

    with tf.GradientTape() as tape:
        tape.watch(params)
        loss = value(params)
    for name, gradient in tape.gradient(loss, params).items():
        compare_with_differences(
            lambda array, name=name: float(value({**params, name: tf.constant(array)})), params[name].numpy(), gradient.numpy()
        )


def test_losses_are_means_of_what_sample_and_log_density_return():
    params = flows.init_planar_flow(np.random.default_rng(19), 4)
    base = np.random.default_rng(20).normal(size=(50, 2)).astype(np.float32)
    x, log_q = flows.PlanarFlow("base_to_data").sample(params, base)
    loss = flows.planar_kl_loss(params, tf.constant(base), lambda x: x[:, 0] ** 2)
    np.testing.assert_allclose(loss, np.mean(log_q + x[:, 0] ** 2), rtol=1e-5)
    nll = flows.planar_nll_loss(params, tf.constant(base))
    np.testing.assert_allclose(nll, -np.mean(flows.PlanarFlow("data_to_base").log_density(params, base)), rtol=1e-5)


# Planar flows


def strong_planar_params(seed, layers=4, dim=2):
    """Layers near the limit of invertibility: w . u far below -1 in many, before the constraint."""
    rng = np.random.default_rng(seed)
    return {"w": 2 * rng.normal(size=(layers, dim)), "u": 3 * rng.normal(size=(layers, dim)), "b": rng.normal(size=layers)}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_a_planar_flow_is_inverted_and_its_log_determinant_that_of_its_jacobian(seed, dim):
    params = strong_planar_params(seed, dim=dim)
    z = np.random.default_rng(seed + 1).normal(size=(3, dim))
    tensors = tree_map(tf.constant, params)
    with tf.GradientTape(persistent=True) as tape:
        point = tf.constant(z)
        tape.watch(point)
        image, log_det = flows.planar_flow(tensors, point)
        coordinates = tf.unstack(image, axis=1)
    derivatives = np.stack([tape.gradient(coordinate, point) for coordinate in coordinates], 1)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(derivatives)[1], atol=1e-5)
    assert (np.linalg.det(derivatives) > 0).all()
    back, inverse_log_det = flows.invert_planar_flow(params, image.numpy())
    np.testing.assert_allclose(back, z, atol=1e-6 / np.exp(min(0.0, float(tf.reduce_min(log_det)))))
    np.testing.assert_allclose(flows.planar_flow(tensors, tf.constant(back))[0], image, atol=1e-9)
    if float(tf.reduce_min(log_det)) > -5:
        np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-5)


def test_the_constraint_keeps_w_dot_u_above_minus_one_and_leaves_the_rest_of_u_alone():
    params = strong_planar_params(0, layers=200)
    raw = (params["w"] * params["u"]).sum(1)
    assert raw.min() < -5
    u, product = flows._invertible(params, np.sum, lambda x: np.logaddexp(x, 0.0))
    assert (product > -1).all()
    np.testing.assert_allclose((params["w"] * u).sum(1), product, atol=1e-12)
    np.testing.assert_allclose(product, np.log1p(np.exp(raw)) - 1)  # m(w . u) of their appendix A.1
    across = params["w"][:, ::-1] * [1, -1]
    np.testing.assert_allclose((across * u).sum(1), (across * params["u"]).sum(1), atol=1e-12)


@pytest.mark.parametrize("runs", ["base_to_data", "data_to_base"])
def test_either_direction_samples_from_its_density_which_integrates_to_one(runs):
    params, flow = flows.init_planar_flow(np.random.default_rng(21), 6), flows.PlanarFlow(runs)
    params["u"] = 3 * params["u"]
    base = np.random.default_rng(22).normal(size=(20_000, 2))
    x, log_q = flow.sample(params, base)
    np.testing.assert_allclose(flow.log_density(params, x), log_q, atol=2e-3)
    side = np.linspace(-12.0, 12.0, 301)
    density = np.exp(flow.log_density(params, np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)))
    cell = (side[1] - side[0]) ** 2
    np.testing.assert_allclose(density.sum() * cell, 1.0, atol=5e-3)
    mean = (density.reshape(301, 301).sum(0) * side).sum() * cell
    assert abs(x[:, 0].mean() - mean) < 5 * x[:, 0].std() / math.sqrt(len(x))


# Arguments


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: flows.init_planar_dynamics(np.random.default_rng(0), 0), "units"),
        (lambda: flows.init_planar_flow(np.random.default_rng(0), 2.0), "layers"),
        (lambda: flows.init_hamiltonian_dynamics(np.random.default_rng(0), dim=3), "dim must be even"),
        (lambda: flows.with_trace(mlp_velocity, "guess"), "trace must be one of exact, gaussian, rademacher"),
        (lambda: flows.PlanarFlow("upwards"), "runs must be"),
        (lambda: flows.ContinuousFlow(flows.planar_dynamics, (1.0, 1.0)), "times must be two different times"),
        (lambda: flows.ContinuousFlow(flows.planar_dynamics, (0.0, 1.0, 2.0)), "times must be two different times"),
        (lambda: flows.ContinuousFlow(flows.planar_dynamics).sample({}, np.zeros(2)), r"base must have shape \(points, d\)"),
        (lambda: flows.ContinuousFlow(flows.planar_dynamics).log_density({}, np.zeros(2)), r"x must have shape \(points, d\)"),
        (lambda: flows.PlanarFlow("base_to_data").log_density({}, np.zeros((0, 2))), r"x must have shape \(points, d\)"),
    ],
)
def test_arguments_that_make_no_sense_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

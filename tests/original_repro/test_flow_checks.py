"""Propositions 1 to 3 as checks: of fields whose flow is known, of networks, and of maps that are no flows."""

import math

import numpy as np
import pytest
import tensorflow as tf

from original_repro import augmented, flow_checks
from original_repro.augmented import NeuralOde, mlp_field
from original_repro.datasets import toy_functions
from original_repro.flow_checks import Flow
from original_repro.training import tree_map


def rng(seed=0):
    return np.random.default_rng(seed)


def linear_field(t, z, params):
    return tf.matmul(z, tf.transpose(params["matrix"]))


def linear_flow(matrix, **settings):
    return Flow(linear_field, {"matrix": np.array(matrix, np.float64)}, **settings)


def strong_network(dim, seed, factor=2.0):
    """A field with weights that many times the usual, so that its flow is far from the identity."""
    return tree_map(lambda leaf: factor * leaf, augmented.init_mlp_field(rng(seed), dim, 16))


def test_a_linear_flow_is_the_matrix_exponential_whatever_the_parts():
    turn = linear_flow([[0.0, -math.pi], [math.pi, 0.0]], at_once=3)
    z = rng().normal(size=(7, 2))
    np.testing.assert_allclose(turn(z), -z, atol=1e-7)
    np.testing.assert_allclose(turn.inverse(z), -z, atol=1e-7)
    np.testing.assert_allclose(turn(z, together=7), -z, atol=1e-7)
    np.testing.assert_allclose(turn.log_det(z), 0.0, atol=1e-7)
    still = turn.but(params={"matrix": np.zeros((2, 2))})
    np.testing.assert_array_equal(still(z), z)
    np.testing.assert_allclose(turn(z), -z, atol=1e-7)
    rough = turn.but(tolerance=1e-1)
    assert 1e-7 < np.abs(rough(z) + z).max() < 1 and rough.with_log_det.solver["rtol"] == 0.1
    with pytest.raises(ValueError, match=r"points must have shape \(points, D\)"):
        turn(np.zeros(2))


# Proposition 1


def test_flows_of_the_line_keep_the_order_and_one_euler_step_does_not():
    contraction = linear_flow([[-5.0]])
    assert flow_checks.smallest_gap(contraction) == pytest.approx(0.01 * math.exp(-5), rel=1e-5)
    assert flow_checks.smallest_gap(lambda z: z + -5.0 * z) < 0
    assert flow_checks.smallest_gap(Flow(mlp_field, strong_network(1, 0))) > 0


def test_no_flow_of_the_line_swaps_two_points_and_a_half_turn_with_one_dimension_more_does():
    errors = flow_checks.swap_errors(linear_flow([[-5.0]]))
    assert errors["gap"] > 0 and 1.0 < errors["squared_error"] < 1.02 and 0.5 < errors["huber"] < 0.51
    network = flow_checks.swap_errors(Flow(mlp_field, strong_network(1, 3)))
    assert network["gap"] > 0 and network["squared_error"] > 1 and network["huber"] > 0.5
    turned = flow_checks.swap_errors(linear_flow([[0.0, -math.pi], [math.pi, 0.0]]), extra=1)
    assert turned["gap"] == pytest.approx(-2) and turned["squared_error"] < 1e-12 and turned["huber"] < 1e-12


# Proposition 2


def lifting_field(t, z, params):
    """The plane stays, and the third coordinate goes up by the square of the distance from 0."""
    height = tf.reduce_sum(z[:, :2] ** 2, 1, keepdims=True) * params["one"]
    return tf.concat([tf.zeros_like(z[:, :2]), height], 1)


def test_a_flow_of_the_plane_winds_once_and_squaring_twice():
    assert flow_checks.winding_number(linear_flow([[3.0, 4.0], [0.0, -2.0]])) == 1
    assert flow_checks.winding_number(Flow(mlp_field, strong_network(2, 0))) == 1
    lifted = Flow(lifting_field, {"one": np.ones(())})
    assert flow_checks.winding_number(lifted, extra=1) == 1

    def squared(z):
        square = (z[:, 0] + 1j * z[:, 1]) ** 2
        return np.stack([square.real, square.imag], -1)

    assert flow_checks.winding_number(squared) == 2
    assert flow_checks.winding_number(lambda z: z * np.array([1.0, -1.0])) == -1


def test_a_circle_that_a_map_squeezes_is_followed_with_more_points_or_given_up():
    squeeze = np.array([1.0, 1e-3])
    assert flow_checks.winding_number(lambda z: z * squeeze, points=8) == 1
    with pytest.raises(RuntimeError, match="12 points are too few"):
        flow_checks.winding_number(lambda z: z * squeeze, points=8, most=12)


def test_every_circle_has_a_tunnel_for_a_flow_of_the_plane_and_none_for_a_lift():
    params = {"field": strong_network(2, 0), "head": augmented.init_dense(rng(0), 2, 1)}
    model = NeuralOde(mlp_field, dtype="float64", rtol=1e-7, atol=1e-7)
    margins = flow_checks.tunnel_margins(lambda x: model.outputs(params, x), points=90)
    assert len(margins) == 5 and max(margins) < 0
    head = {"weight": np.array([[0.0], [0.0], [1.0]]), "bias": np.zeros(1)}
    lifted = NeuralOde(lifting_field, extra=1, dtype="float64", rtol=1e-7, atol=1e-7)
    margins = flow_checks.tunnel_margins(
        lambda x: lifted.outputs({"field": {"one": np.ones(())}, "head": head}, x), radii=(1.0, 1.5), points=90
    )
    np.testing.assert_allclose(margins, [1.0, 2.25], rtol=1e-6)


def test_a_narrow_tunnel_is_found():
    def outputs(x):
        angle = np.arctan2(x[:, 1], x[:, 0])
        return (1.0 - 3.0 * np.exp(-(((angle - 1.001) / 0.02) ** 2)) * (np.hypot(*x.T) > 0.5))[:, None]

    margins = flow_checks.tunnel_margins(outputs, points=360)
    np.testing.assert_allclose(margins, -3.0, atol=1e-4)


def test_wrong_answers_are_counted_on_dense_points():
    points = toy_functions.dense_regions(2, 500, rng())
    right = flow_checks.wrong_answers(lambda x: np.sign(np.linalg.norm(x, axis=1, keepdims=True) - 0.75), points)
    assert right == {"wrong": 0.0, "huber": 0.0, "largest_error": 0.0}
    constant = flow_checks.wrong_answers(lambda x: np.ones((len(x), 1)), points)
    assert constant["wrong"] == 0.5 and constant["huber"] == 0.75 and constant["largest_error"] == 2.0


# Proposition 3


def test_solving_back_undoes_a_flow_the_better_the_tighter():
    z, params = rng().normal(size=(40, 2)), strong_network(2, 1)
    errors = [flow_checks.reconstruction_error(Flow(mlp_field, params, tolerance=tol), z)["max"] for tol in (1e-2, 1e-5, 1e-8)]
    assert errors[0] > errors[1] > 10 * errors[2] and errors[2] < 1e-5


def test_the_determinant_is_the_exponential_of_the_integrated_trace():
    matrix = rng().normal(size=(3, 3))
    by_trace, by_differences = flow_checks.determinants(linear_flow(matrix), rng(1).normal(size=(5, 3)))
    np.testing.assert_allclose(by_trace, math.exp(np.trace(matrix)), rtol=1e-6)
    np.testing.assert_allclose(by_differences, math.exp(np.trace(matrix)), rtol=1e-4)
    z = rng(2).normal(size=(40, 2))
    by_trace, by_differences = flow_checks.determinants(Flow(mlp_field, strong_network(2, 2)), z)
    assert by_trace.std() > 0.1 and (by_trace > 0).all()
    # A kink of a ReLU within the difference's step spoils a few.
    assert np.median(np.abs(by_differences / by_trace - 1)) < 1e-3


def test_points_of_a_flow_do_not_collide_and_those_of_a_fold_do():
    z = rng().normal(size=(60, 2))
    assert flow_checks.smallest_stretch(linear_flow([[-2.0, 0.0], [0.0, 1.0]]), z) > math.exp(-2) * 0.999
    assert flow_checks.smallest_stretch(np.abs, np.array([[1.0, 0.5], [-1.0, 0.5], [0.3, 0.2]])) == 0.0


def test_the_ladder_shows_which_tolerances_integrate_and_what_failed():
    z, params = rng().normal(size=(20, 2)), strong_network(2, 1)
    rows = flow_checks.tolerance_ladder(mlp_field, params, z, (1e-3, 1e-5, 1e-8))
    assert [row["tolerance"] for row in rows] == [1e-3, 1e-5, 1e-8] and not any(row["failed"] for row in rows)
    assert rows[0]["nfe"] < rows[1]["nfe"] < rows[2]["nfe"] and rows[0]["moved_since_last"] is None
    assert rows[0]["reconstruction_max"] > rows[2]["reconstruction_max"] and rows[2]["moved_since_last"] < 1e-2
    assert all(row["det_min"] > 0 and row["det_trace_min"] > 0 for row in rows)

    def exploding(t, z, params):
        return z * z * params["rate"]

    (row,) = flow_checks.tolerance_ladder(exploding, {"rate": np.full((), 3.0)}, np.ones((2, 1)), (1e-3,))
    assert row["failed"] and row["nfe"] is None and row["tolerance"] == 1e-3

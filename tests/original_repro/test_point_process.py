import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest

from original_repro import point_process as pp
from original_repro import training
from solvers_bridge import record_solves


def as_float64(params):
    return training.tree_map(lambda leaf: np.asarray(leaf, np.float64), params)


def inner(tree, other):
    return sum(np.sum(a * b) for a, b in zip(training.tree_leaves(tree), training.tree_leaves(other), strict=True))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return training.tree_map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape), as_float64(pp.init_point_process(rng)))


@pytest.fixture(scope="module")
def net():
    return pp.PointProcess(0.5, 3.0)


def padded_events():
    return np.array([[0.7, 1.1, 2.9], [1.9, 3.0, 3.0], [3.0, 3.0, 3.0]]), np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], float)


def test_integral_agrees_with_quadrature_and_comes_with_the_trajectory_in_one_call(net, params):
    events, mask = padded_events()
    with record_solves() as solves:
        likelihood = net.log_likelihood(params, events, mask)
    assert [solve.direction for solve in solves] == ["forward"]
    integral, _ = quad(lambda t: net.intensity(params, [t])[0], 0.5, 3.0, epsabs=1e-8)
    logs = np.log(net.intensity(params, [0.7, 1.1, 1.9, 2.9]))
    np.testing.assert_allclose(likelihood, [logs[0] + logs[1] + logs[3] - integral, logs[2] - integral, -integral], rtol=1e-6)


def test_a_constant_intensity_has_the_closed_form(net, params):
    """With zero weights lambda is the softplus of the output's bias, whatever z does: k log(lambda) - lambda (end - start)."""
    still = {**params, "intensity": training.tree_map(np.zeros_like, params["intensity"])}
    still["intensity"]["output"]["bias"] = np.array([1.3])
    rate = np.log1p(np.exp(1.3))
    expected = np.array([3, 1, 0]) * np.log(rate) - 2.5 * rate
    np.testing.assert_allclose(net.log_likelihood(still, *padded_events()), expected, rtol=1e-7)


def test_padding_has_no_part_in_the_likelihood(net, params):
    events, mask = padded_events()
    np.testing.assert_allclose(
        net.log_likelihood(params, np.where(mask > 0, events, 77.0), mask), net.log_likelihood(params, events, mask), rtol=1e-12
    )


def test_gradient_agrees_with_finite_differences(net, params):
    rng = np.random.default_rng(1)
    exact = pp.PointProcess(0.5, 3.0, method="dop853", rtol=1e-12, atol=1e-12)
    metrics, gradient = net.value_and_grad(params, *padded_events())
    direction = training.tree_map(lambda leaf: rng.normal(size=np.shape(leaf)), params)
    along = [
        np.mean(exact.log_likelihood(training.tree_map(lambda p, d: p + h * d, params, direction), *padded_events()))
        for h in (1e-5, -1e-5)
    ]
    assert inner(gradient, direction) == pytest.approx((along[1] - along[0]) / 2e-5, rel=1e-6)
    assert metrics["nfe_backward"] > 0


@pytest.mark.slow
def test_joint_elbo_adds_the_events_and_its_gradient_agrees_with_finite_differences():
    rng = np.random.default_rng(2)
    params = as_float64(pp.init_latent_ode_with_events(rng))
    settings = {"dtype": "float64", "start": 0.5, "method": "dop853", "rtol": 1e-12, "atol": 1e-12}
    net = pp.LatentOdeWithEvents(3.0, **settings)
    times, values, draws = np.sort(rng.uniform(0.5, 3.0, (3, 4)), axis=1), rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4))
    series = times, values, np.ones((3, 4))
    elbo, parts = net.elbo(params, *series, *padded_events(), draws)
    data_only, data_parts = pp.LatentOde(**settings).elbo({k: v for k, v in params.items() if k != "intensity"}, *series, draws)
    np.testing.assert_allclose(parts["log_likelihood"], data_parts["log_likelihood"], rtol=1e-9)
    np.testing.assert_allclose(elbo, data_only + parts["events"], rtol=1e-9)
    mean, deviation = net.posterior(params, *series)
    z0 = mean + deviation * draws
    np.testing.assert_allclose(parts["events"], net.events_log_likelihood(params, z0, *padded_events()), rtol=1e-8)
    np.testing.assert_allclose(
        net.intensities(params, z0, [0.7])[0, 0],
        np.exp(pp.log_intensity(params["intensity"], net.trajectories(params, z0, np.array([0.5, 0.7]))[1, :1]))[0],
        rtol=1e-8,
    )

    _, gradient = net.value_and_grad(params, *series, *padded_events(), draws)
    direction = training.tree_map(lambda leaf: rng.normal(size=np.shape(leaf)), params)
    along = [
        np.mean(net.elbo(training.tree_map(lambda p, d: p + h * d, params, direction), *series, *padded_events(), draws)[0])
        for h in (1e-5, -1e-5)
    ]
    assert inner(gradient, direction) == pytest.approx((along[1] - along[0]) / 2e-5, rel=1e-6)


def test_thinning_gives_a_poisson_process_of_the_intensity():
    """Time changed by the integral of the intensity 2t on [1, 3], events are uniform, their number is Poisson's."""
    events, mask = pp.sample_events(np.random.default_rng(3), lambda t: 2 * t, 6.0, 1.0, 3.0, 2000)
    counts = mask.sum(1)
    assert counts.mean() == pytest.approx(8.0, abs=0.3) and counts.var() == pytest.approx(8.0, abs=1.0)
    uniform = (events[mask > 0] ** 2 - 1) / 8
    assert kstest(uniform, "uniform").pvalue > 1e-3
    assert np.all(events[mask == 0] == 3.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0.01, 5.0), count=st.integers(1, 5))
def test_events_are_sorted_inside_the_interval_with_padding_last(seed, rate, count):
    events, mask = pp.sample_events(np.random.default_rng(seed), lambda t: np.full_like(t, rate), 5.0, -1.0, 1.0, count)
    assert events.shape == mask.shape and len(events) == count
    assert np.all(np.diff(events, axis=1) >= 0) and np.all(np.diff(mask, axis=1) <= 0)
    assert np.all((events >= -1.0) & (events <= 1.0)) and np.isin(mask, (0.0, 1.0)).all()


def test_an_intensity_above_its_bound_is_refused():
    with pytest.raises(ValueError, match="intensity must lie between 0 and bound = 1.0, got values from 2.0 to 2.0"):
        pp.sample_events(np.random.default_rng(4), lambda t: np.full_like(t, 2.0), 1.0, 0.0, 10.0, 3)

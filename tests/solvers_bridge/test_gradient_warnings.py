"""Warnings of gradients that are not to be trusted or were dear: when, at which line, and when not; and NaN in a loss's gradient."""

import warnings

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp
from autograd.tracer import getval

from solvers_bridge import GradientWarning, odeint
from solvers_bridge.statistics import warn_user
from tests.helpers import ADAPTIVE


def warnings_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, [warning for warning in caught if issubclass(warning.category, GradientWarning)]


# --- A reverse solve that loses z(t).


def relax(rate, **options):
    means = {"method": "dopri5", "adjoint_options": {"reconstruction": "solve", **options}, "rtol": 1e-6, "atol": 1e-6}
    return odeint(lambda t, y, k: -k * anp.sin(y - anp.cos(t)), 1.1, [0.0, 1.0], rate, **means)[-1]


def test_a_warning_is_shown_once_a_line_of_the_user():
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for _ in range(3):
            grad(relax)(25.0)
    told = [warning for warning in caught if issubclass(warning.category, GradientWarning)]
    assert len(told) == 1 and told[0].filename == __file__
    assert "lost z(t) between t = 1.0 and 0.0" in str(told[0].message) and "'reconstruction': 'auto'" in str(told[0].message)


@pytest.mark.parametrize(
    "second", (lambda f: make_jvp(grad(f))(25.0)(1.0), lambda f: grad(grad(f))(25.0)), ids=("forward", "reverse")
)
def test_a_gradient_that_is_differentiated_warns_as_well(second):
    _, told = warnings_of(lambda: second(relax))
    assert told and "which is being differentiated in its turn" in str(told[0].message) and told[0].filename == __file__


def test_filters_make_an_error_of_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        with pytest.raises(GradientWarning, match="lost z"):
            grad(relax)(25.0)


def brusselator_gradient(method, tolerance, **means):
    """Of a component at the end, by [*y0, k]: the end is good to a few tolerances, while the way back expands."""

    def func(t, y, k):
        made = y[0] ** 2 * y[1]
        return k * anp.array([1 + made - 4 * y[0], 3 * y[0] - made])

    def end(p):
        return odeint(func, p[:2], [0.0, 10.0], p[2], method=method, rtol=tolerance, atol=tolerance, **means)[-1, 0]

    return grad(end)(np.array([1.5, 3.0, 1.0]))


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda"))
def test_a_state_that_is_hardly_found_is_told(method):
    exact = brusselator_gradient("dop853", 1e-10)
    bars, told = warnings_of(lambda: brusselator_gradient(method, 1e-4))
    assert len(told) == 1 and told[0].filename == __file__
    message = str(told[0].message)
    assert "hardly found z(t) between t = 10.0 and 0.0" in message and "{'reconstruction': 'interpolate'}" in message
    known, none = warnings_of(lambda: brusselator_gradient(method, 1e-4, adjoint_options={"reconstruction": "interpolate"}))
    assert not none and 20 * np.linalg.norm(known - exact) < np.linalg.norm(bars - exact)
    assert not warnings_of(lambda: brusselator_gradient(method, 1e-8))[1]


# --- An adjoint that has lost its balance.


def van_der_pol_gradient(tolerance):
    """d/dmu of y0 after a jump, by which errors of z(t) are multiplied: -0.00243."""

    def func(t, y, mu):
        return anp.array([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    return grad(lambda mu: odeint(func, [2.0, 0.0], [0.0, 1500.0], mu, method="lsoda", rtol=tolerance, atol=tolerance)[-1, 0])(
        1e3
    )


def test_a_gradient_without_balance_is_told():
    got, told = warnings_of(lambda: van_der_pol_gradient(1e-3))
    assert abs(got) > 0.3 and len(told) == 1 and told[0].filename == __file__
    assert "the gradient by lsoda may be wrong: the adjoint's a . f + a_t" in str(told[0].message)
    got, told = warnings_of(lambda: van_der_pol_gradient(1e-9))
    assert got == pytest.approx(-0.00243, rel=1e-2) and not told


def relaxed(rate, times=(0.0, 0.3, 1.0), **means):
    """Stable steps of dopri5 at its limit of stability, of which the derivative is not that of the solution: -8.303e-5."""
    return odeint(lambda t, y, k: -k * (y - anp.cos(t)), 0.5, list(times), rate, method="dopri5", **means)[-1]


@pytest.mark.parametrize("times", ((0.0, 0.3, 1.0), (1.0, 0.3, 0.0)), ids=str)
def test_a_gradient_through_steps_without_balance_is_told(times):
    rate = 100.0 if times[-1] else -100.0
    loose = lambda: grad(lambda k: relaxed(k, times, rtol=1e-2, atol=1e-2, adjoint_method="discrete"))(rate)
    exact = grad(lambda k: relaxed(k, times, rtol=1e-10, atol=1e-10, adjoint_options={"reconstruction": "interpolate"}))(rate)
    got, told = warnings_of(loose)
    assert abs(got) > 10 * abs(exact) and len(told) == 1 and told[0].filename == __file__
    assert "the gradient through the steps of dopri5 may be wrong" in str(told[0].message)
    got, told = warnings_of(lambda: grad(lambda k: relaxed(k, times, rtol=1e-6, atol=1e-6, adjoint_method="discrete"))(rate))
    assert got == pytest.approx(exact, rel=1e-2) and not told


@pytest.mark.parametrize("adjoint_method", (None, "discrete"))
@pytest.mark.parametrize(
    "drive", (lambda t: 5.0 if 0.3 < t < 0.4 else 0.0, lambda t: np.sin(5 * t), lambda t: np.interp(t, [0, 0.5, 1], [1, 5, 2]))
)
def test_a_hidden_dependence_on_time_is_no_fault_of_the_gradient(drive, adjoint_method):
    """dL/dt0 would be wrong, and nobody asked for it."""
    means = {"method": "dopri5", "rtol": 1e-4, "atol": 1e-4, "adjoint_method": adjoint_method}
    end = lambda k: odeint(lambda t, y, k: -k * y + drive(float(getval(t))), 1.0, [0.0, 1.0], k, **means)[-1]
    assert not warnings_of(lambda: grad(end)(1.0))[1]


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5"))
@pytest.mark.parametrize("tolerance", (1e-2, 1e-4, 1.5e-8))
def test_a_state_that_comes_to_rest_is_no_fault_of_the_gradient(method, tolerance):
    """What is left of the adjoint at the start is nothing but its absolute tolerance, and the gradient by k is right."""
    func = lambda t, y, k: anp.array([k - y[0], y[0] - 2 * y[1]])
    end = lambda k: odeint(func, [3.0, 0.5], [0.0, 25.0], k, method=method, rtol=tolerance, atol=tolerance)[-1, 1]
    bar, told = warnings_of(lambda: grad(end)(1.0))
    assert bar == pytest.approx(0.5, rel=max(10 * tolerance, 1e-6)) and not told


@pytest.mark.parametrize("adjoint_method", (None, "discrete"))
def test_a_slope_that_is_zero_at_both_ends_is_no_fault_of_the_gradient(adjoint_method):
    func = lambda t, y, k: k * anp.sin(np.pi * t)
    means = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-9, "adjoint_method": adjoint_method}
    bar, told = warnings_of(lambda: grad(lambda k: odeint(func, 0.3, [0.0, 1.0], k, **means)[-1])(1.0))
    assert bar == pytest.approx(2 / np.pi, rel=1e-3) and not told


def test_fixed_grids_have_their_own_gradients():
    """Whoever takes one step of Euler's wants no flow."""
    means = {"method": "euler", "options": {"step_size": 1.0}}
    for adjoint_method in (None, "discrete"):
        end = lambda k: odeint(lambda t, y, k: -k * y**3, 1.0, [0.0, 1.0], k, **means, adjoint_method=adjoint_method)[-1]
        assert not [one for one in warnings_of(lambda: grad(end)(1.5))[1] if "a . f" in str(one.message)]


def test_a_training_is_told_once_whatever_the_numbers():
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for rate in (100.0, 101.0, 103.0):
            grad(lambda k: relaxed(k, rtol=1e-2, atol=1e-2, adjoint_method="discrete"))(rate)
    assert len([warning for warning in caught if issubclass(warning.category, GradientWarning)]) == 1


def test_the_line_is_the_one_outside_this_package():
    def calls_it():
        warn_user("something", UserWarning)

    with pytest.warns(UserWarning, match="something") as caught:
        calls_it()
    assert caught[0].filename == __file__


# --- Parameters that are not used.


def unused(count, method="adams", **options):
    """d/d(rate) of y' = -rate y with count parameters besides."""
    means = {"method": method, "rtol": 1e-3, "atol": 1e-3, "adjoint_options": options}

    def loss(params):
        return odeint(lambda t, y, p: -p["rate"] * y, np.array([1.0, 2.0]), [0.0, 1.0], params, **means)[-1, 0]

    return lambda: grad(loss)({"rate": 0.7, "other": np.ones(count)})


@pytest.mark.parametrize("method", ("adams", "bdf", "dopri5", "dop853"))
def test_many_unused_parameters_are_told(method):
    bars, told = warnings_of(unused(100_000, method))
    assert len(told) == 1 and told[0].filename == __file__
    message = str(told[0].message)
    assert "100000 of 100001 parameters" in message and "{'norm': 'seminorm'}" in message and "129 times looser" in message
    assert not bars["other"].any()


@pytest.mark.parametrize("method", ("adams", "dopri5"))
def test_the_seminorm_cures_it_without_a_word(method):
    bars, told = warnings_of(unused(100_000, method, norm="seminorm"))
    assert not told and bars["rate"] == pytest.approx(-np.exp(-0.7), rel=1e-2)


def test_radau_is_told_too():
    """A dense matrix of all unknowns is why there are few of them here."""
    _, told = warnings_of(unused(700, "radau"))
    assert len(told) == 1


@pytest.mark.parametrize("means", ({"method": "lsoda"}, {"count": 500}, {"count": 0}), ids=str)
def test_nothing_is_told_where_nothing_is_diluted(means):
    """LSODA's norm is a maximum; a few hundred loosen a tolerance less than tenfold."""
    assert not warnings_of(unused(**{"count": 600, **means}))[1]


def test_nothing_is_told_of_a_discrete_gradient():
    loss = lambda p: odeint(lambda t, y, p: -p["rate"] * y, 1.0, [0.0, 1.0], p, method="dopri5", adjoint_method="discrete")[-1]
    assert not warnings_of(lambda: grad(loss)({"rate": 0.7, "other": np.ones(5_000)}))[1]


def test_a_gradient_that_is_zero_altogether():
    """No reverse solve was made."""
    assert not warnings_of(lambda: grad(lambda p: odeint(lambda t, y, p: -y, 1.0, [0.0, 1.0], p)[0])(np.ones(1000)))[1]


def test_networks_of_rectifiers_and_a_head_of_their_own():
    """Half of the units dead, nine tenths of the weights pruned, and the classifier's parameters handed along."""
    rng = np.random.default_rng(0)
    params = {
        "w1": rng.normal(size=(4, 300)),
        "b1": rng.normal(size=300) - 0.5,
        "w2": rng.normal(size=(300, 4)),
        "head": np.zeros((4, 10)),
    }
    mask = rng.uniform(size=(4, 300)) < 0.1

    def func(t, y, p):
        hidden = anp.dot(y, p["w1"] * mask) + p["b1"]
        return anp.dot(anp.where(hidden > 0, hidden, 0.0), p["w2"] * mask.T) / 300

    loss = lambda p: anp.sum(odeint(func, np.ones((1, 4)), [0.0, 1.0], p, rtol=1e-3, atol=1e-3)[-1] ** 2)
    bars, told = warnings_of(lambda: grad(loss)(params))
    assert not told and np.mean(bars["w1"] == 0) > 0.9


# --- A gradient of the loss that is not finite.


@pytest.mark.parametrize("method", (*ADAPTIVE, "rk4"))
@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_not_finite_in_the_loss_is_not_blamed_on_func(method, bad):
    def loss(y0):
        ys = odeint(lambda t, y, p: -y, y0, [0.0, 0.5, 1.0], method=method)
        return anp.sum(ys * np.array([[1.0, 1.0], [1.0, bad], [1.0, 1.0]]))

    with pytest.raises(
        ValueError, match=r"not finite, first at output 1 \(t = 0\.5\); look there, the solve itself is sound"
    ) as info:
        grad(loss)(np.array([1.0, 2.0]))
    assert "func" not in str(info.value)


def test_not_finite_in_the_loss_under_every_way_back():
    for means in (
        {"adjoint_options": {"reconstruction": "interpolate"}},
        {"adjoint_options": {"checkpoint": 2}},
        {"method": "dopri5", "adjoint_method": "discrete"},
    ):
        with pytest.raises(ValueError, match="the solve itself is sound"):
            grad(lambda y0: anp.log(odeint(lambda t, y, p: 0.0 * y, y0, [0.0, 1.0], **means)[-1]))(0.0)


def test_not_finite_in_the_loss_of_a_gradient_of_a_gradient():
    def loss(y0):
        return anp.sum(odeint(lambda t, y, p: -(y**2), y0, [0.0, 1.0])[-1] * np.array([1.0, np.nan]))

    with pytest.raises(ValueError, match="the solve itself is sound"):
        grad(lambda y0: anp.sum(grad(loss)(y0)))(np.array([1.0, 2.0]))

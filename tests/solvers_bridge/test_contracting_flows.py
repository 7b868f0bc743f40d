"""Gradients where the flow contracts, so that z(t) cannot be found by solving backwards.

Right values: the relaxation's closed form; for the others forward sensitivities, of Radau's method in SciPy with the analytic
Jacobian of [y, dy/dp] at rtol = 1e-12, atol = 1e-14 (for Robertson's y, dy/dp: 1e-14, 1e-18, 1e-14, 1e-13, 1e-17, 1e-13).
reference_sensitivity makes them; the constants are its output.
"""

import inspect
import warnings

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, hessian, jacobian, make_jvp
from autograd.tracer import getval
from scipy.integrate import solve_ivp

from solvers_bridge import GradientWarning, SolverError, odeint, record_solves
from tests.helpers import ADAPTIVE, some_fast

STIFF_METHODS = ("bdf", "lsoda", "radau")
ROBERTSON_RATES = np.array([0.04, 3e7, 1e4])
every_stiff_method = pytest.mark.parametrize("method", STIFF_METHODS)


each_adaptive = pytest.mark.parametrize("method", some_fast(ADAPTIVE, "lsoda", "dopri5"))


def stiff(method):
    """The option with which VODE and Radau have Newton iterations with exact Jacobians; LSODA has its own."""
    return {"jacobian": "autodiff"} if method in ("bdf", "radau") else {}


def relaxation(t, y, rate):
    """Falls onto cos t; y(0) = 1.2."""
    return -rate * (y - anp.cos(t))


def relaxation_derivative(rate, t=1.0):
    """dy(t)/drate of y = A cos t + B sin t + (1.2 - A) exp(-rate t), A = rate^2/(1 + rate^2), B = rate/(1 + rate^2)."""
    n = 1 + rate**2
    a, da, db, fall = rate**2 / n, 2 * rate / n**2, (1 - rate**2) / n**2, np.exp(-rate * t)
    return da * np.cos(t) + db * np.sin(t) - da * fall - (1.2 - a) * t * fall


def van_der_pol(t, y, mu):
    return anp.array([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(t, y, rates):
    slow, fast, back = rates[0] * y[0], rates[1] * y[1] ** 2, rates[2] * y[1] * y[2]
    return anp.array([back - slow, slow - back - fast, fast])


# By end: dy_3/dk_1 of Robertson's problem; by (mu, end): dy_1/dmu of Van der Pol's oscillator from (2, 0).
ROBERTSON = {0.03: 0.029279274287173612, 1.0: 0.7662610106418918, 100.0: 5.116434165113144, 1e4: 3.437822127188988}
VAN_DER_POL = {(4.0, 12.0): 0.39796938277860977, (50.0, 60.0): -0.020750325024745286, (1000.0, 1500.0): -0.0024319307367976616}


def reference_sensitivity(func, y0, end, p, direction, rtol, atol):
    """dy(end)/dp along direction, by the tangent system solved forwards with SciPy's Radau."""
    n = len(y0)
    by_y, by_p = jacobian(func, 1), jacobian(func, 2)

    def tangent(t, s):
        y, v = s[:n], s[n:]
        return np.concatenate([func(t, y, p), by_y(t, y, p) @ v + by_p(t, y, p) @ direction])

    start = np.concatenate([y0, np.zeros(n)])
    return solve_ivp(tangent, (0.0, end), start, method="Radau", rtol=rtol, atol=atol).y[n:, -1]


@pytest.mark.parametrize(
    "tol, rel", [pytest.param(1e-6, 1e-5, id="1e-6"), pytest.param(1e-9, 1e-7, id="1e-9", marks=pytest.mark.slow)]
)
def test_the_constants(tol, rel):
    """The cheapest, made again."""
    got = reference_sensitivity(robertson, np.array([1.0, 0, 0]), 0.03, ROBERTSON_RATES, np.eye(3)[0], tol, 1e-14)
    np.testing.assert_allclose(got[2], ROBERTSON[0.03], rtol=rel)


@pytest.mark.slow
def test_a_constant_of_van_der_pol():
    mu = np.array([4.0])
    got = reference_sensitivity(
        lambda t, y, mu: van_der_pol(t, y, mu[0]), np.array([2.0, 0.0]), 12.0, mu, np.ones(1), 1e-8, 1e-10
    )
    np.testing.assert_allclose(got[0], VAN_DER_POL[4.0, 12.0], rtol=1e-6)


def relaxation_gradient(rate, method, times=(0.0, 1.0), tol=1e-8, **means):
    def end(rate):
        return odeint(relaxation, [1.2], times, rate, method=method, rtol=tol, atol=tol, options=stiff(method), **means)[-1, 0]

    return grad(end)(rate)


def reconstructed(reconstruction):
    """adjoint_options that say it, or nothing."""
    return {} if reconstruction is None else {"adjoint_options": {"reconstruction": reconstruction}}


each_safe_way = pytest.mark.parametrize("reconstruction", ["interpolate", None])


# --- Right gradients, as the user asks for them or not.


@each_safe_way
@pytest.mark.parametrize(
    "rate, times", some_fast([(rate, times) for rate in (60.0, 1000.0) for times in ("end", "several")], (60.0, "several"))
)
@every_stiff_method
def test_relaxation(method, rate, times, reconstruction):
    times = {"end": (0.0, 1.0), "several": (0.0, 0.1, 0.3, 0.7, 1.0)}[times]
    got = relaxation_gradient(rate, method, times, **reconstructed(reconstruction))
    assert got == pytest.approx(relaxation_derivative(rate), rel=1e-5)


@each_safe_way
@pytest.mark.parametrize(
    "method, rate, rel",
    some_fast([("adams", 60.0, 1e-5), ("dopri5", 60.0, 1e-5), ("dop853", 1000.0, 2e-4)], ("adams", 60.0, 1e-5)),
)
def test_relaxation_by_methods_for_other_problems(method, rate, rel, reconstruction):
    """Stability limits their steps, not their gradients."""
    got = relaxation_gradient(rate, method, (0.0, 0.4, 1.0), **reconstructed(reconstruction))
    assert got == pytest.approx(relaxation_derivative(rate), rel=rel)


@pytest.mark.parametrize("method", ["dopri5", "dop853"])
@pytest.mark.parametrize("rate", some_fast([60.0, 1000.0], 60.0))
def test_relaxation_through_the_steps_taken(method, rate):
    got = relaxation_gradient(rate, method, (0.0, 0.4, 1.0), adjoint_method="discrete")
    assert got == pytest.approx(relaxation_derivative(rate), rel=1e-3)


@pytest.mark.parametrize("adjoint_method", some_fast(["bdf", "radau", "dopri5"], "bdf"))
def test_relaxation_with_another_method_backwards(adjoint_method):
    got = relaxation_gradient(60.0, "lsoda", adjoint_method=adjoint_method)
    assert got == pytest.approx(relaxation_derivative(60.0), rel=1e-5)


@pytest.mark.parametrize("options", [{"checkpoint": 7}, {"restart": "warm"}, {"norm": "seminorm"}], ids=str)
@each_safe_way
@pytest.mark.parametrize("method", some_fast(["bdf", "lsoda", "dopri5"], "lsoda"))
def test_relaxation_with_other_adjoint_options(method, reconstruction, options):
    options = {**options, **reconstructed(reconstruction).get("adjoint_options", {})}
    got = relaxation_gradient(60.0, method, (0.0, 0.2, 0.5, 1.0), adjoint_options=options)
    # The seminorm leaves the quadrature's error alone, which is all there is of this gradient.
    assert got == pytest.approx(relaxation_derivative(60.0), rel=1e-3 if "norm" in options else 1e-5)


@each_adaptive
def test_relaxation_backwards_in_time(method):
    """The mirror of it, solved from 0 to -1, contracts as well."""

    def end(rate):
        mirrored = odeint(
            lambda t, y, rate: -relaxation(-t, y, rate),
            [1.2],
            [0.0, -1.0],
            rate,
            method=method,
            rtol=1e-8,
            atol=1e-8,
            options=stiff(method),
        )
        return mirrored[-1, 0]

    assert grad(end)(60.0) == pytest.approx(relaxation_derivative(60.0), rel=1e-5)


def robertson_gradient(end, method, reconstruction):
    def last(rates):
        states = odeint(
            robertson,
            [1.0, 0.0, 0.0],
            [0.0, end],
            rates,
            method=method,
            rtol=1e-8,
            atol=np.array([1e-10, 1e-14, 1e-10]),
            options=stiff(method),
            **reconstructed(reconstruction),
        )
        return states[-1, 2]

    return grad(last)(ROBERTSON_RATES)[0]


@pytest.mark.parametrize("end", some_fast([0.03, 1.0, 100.0, 1e4], 0.03))
@every_stiff_method
def test_robertson(method, end):
    assert robertson_gradient(end, method, "interpolate") == pytest.approx(ROBERTSON[end], rel=1e-5)


@pytest.mark.parametrize(
    "method, end",
    some_fast(
        [(method, end) for method in STIFF_METHODS for end in (0.03, 1.0, 100.0, 1e4)],
        ("bdf", 100.0),
    ),
)
def test_robertson_without_a_word(method, end):
    assert robertson_gradient(end, method, None) == pytest.approx(ROBERTSON[end], rel=1e-5)


def van_der_pol_end(mu, end, method, reconstruction):
    states = odeint(
        van_der_pol,
        [2.0, 0.0],
        [0.0, end],
        mu,
        method=method,
        rtol=1e-8,
        atol=1e-10,
        options=stiff(method),
        **reconstructed(reconstruction),
    )
    return states[-1, 0]


@pytest.mark.parametrize(
    "method, mu, end, reconstruction",
    some_fast(
        [
            (method, *point, way)
            for way in ("interpolate", None)
            for point in ((4.0, 12.0), (50.0, 60.0))
            for method in STIFF_METHODS
        ],
        ("bdf", 4.0, 12.0, "interpolate"),
        ("bdf", 4.0, 12.0, None),
    ),
)
def test_van_der_pol(method, mu, end, reconstruction):
    got = grad(van_der_pol_end)(mu, end, method, reconstruction)
    assert got == pytest.approx(VAN_DER_POL[mu, end], rel=1e-5 if mu == 4.0 else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("reconstruction", ["interpolate", None])
@every_stiff_method
def test_van_der_pol_at_its_stiffest(method, reconstruction):
    """As good as the forward sensitivity by the same means: one relaxation oscillation amplifies errors of mu's time scale."""
    want, arguments = VAN_DER_POL[1000.0, 1500.0], (1500.0, method, reconstruction)
    _, forward = make_jvp(lambda mu: van_der_pol_end(mu, *arguments))(1000.0)(1.0)
    assert abs(grad(van_der_pol_end)(1000.0, *arguments) - want) < 3 * abs(forward - want)


# --- Second derivatives.


@pytest.mark.parametrize(
    "method, reconstruction",
    some_fast(
        [(method, way) for method in ("bdf", "lsoda", "dopri5") for way in ("interpolate", None)], ("lsoda", "interpolate")
    ),
)
def test_second_derivatives(method, reconstruction):
    """Of the relaxation with respect to its rate and y0, along both orders of differentiation."""
    rate, h = 60.0, 1e-2

    def end(x):
        return odeint(
            relaxation,
            anp.reshape(x[1], (1,)),
            [0.0, 0.5, 1.0],
            x[0],
            method=method,
            rtol=1e-9,
            atol=1e-11,
            options=stiff(method),
            **reconstructed(reconstruction),
        )[-1, 0]

    got = hessian(end)(np.array([rate, 1.2]))
    want = (relaxation_derivative(rate + h) - relaxation_derivative(rate - h)) / (2 * h)
    np.testing.assert_allclose(got[0, 0], want, rtol=1e-3)
    # d^2y/(drate dy0) = -exp(-60), and y is linear in y0.
    np.testing.assert_allclose([got[0, 1], got[1, 0], got[1, 1]], 0.0, atol=1e-8)


# --- The paper's way, which says where it fails.


def loss_by_solving_back(method, **options):
    def loss(rate):
        return odeint(
            relaxation, [1.2], [0.0, 0.5, 0.9], rate, method=method, adjoint_options={"reconstruction": "solve", **options}
        )[-1, 0]

    return loss


@each_adaptive
def test_solving_back_warns(method):
    """By how much z(t) was lost, where, and what would help; or it fails, which is no less clear."""
    with pytest.warns(GradientWarning) as caught:
        try:
            grad(loss_by_solving_back(method))(60.0 if method == "dop853" else 40.0)
        except SolverError:
            pytest.warns(GradientWarning, grad(loss_by_solving_back(method)), 30.0)
            return
    text = str(caught[0].message)
    assert method in text and "tolerances away from the stored state" in text
    assert "t = 0.9 and 0.5" in text or "t = 0.5 and 0.0" in text
    assert all(remedy in text for remedy in ("reconstruction", "'auto'", "'interpolate'", "'checkpoint'"))
    assert caught[0].filename == __file__


def test_the_warning_comes_once_a_call_site():
    loss = loss_by_solving_back("adams")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            grad(loss)(40.0)
        first = inspect.currentframe().f_lineno - 1
        grad(loss)(40.0)
    assert [warning.lineno for warning in caught] == [first, first + 2]


@each_adaptive
def test_no_warning_where_the_gradient_is_right(method):
    for options in ({"reconstruction": "interpolate"}, {}, {"reconstruction": "solve", "checkpoint": 60}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = relaxation_gradient(20.0, method, adjoint_options=options)
        assert got == pytest.approx(relaxation_derivative(20.0), rel=1e-4)


@pytest.mark.parametrize("way", ["solve", "auto", "interpolate"])
@each_adaptive
def test_statistics_tell_how_it_went(method, way):
    """A mild flow: one reverse solve of z and a, whose gap is small. A contracting one: a gap, and what was done about it."""

    def solves_of(rate):
        with record_solves() as solves, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                relaxation_gradient(rate, method, adjoint_options={"reconstruction": way})
            except SolverError:
                assert way == "solve"
        return [(solve.direction, solve.size, solve.reconstruction_gap) for solve in solves]

    (_, _, no_gap), (direction, size, gap) = solves_of(0.5)
    assert no_gap is None and direction == "backward"
    assert (size, gap) == (3, None) if way == "interpolate" else size == 4 and gap < 100

    contracting = solves_of(60.0)
    if way == "interpolate":
        assert contracting == [("forward", 1, None), ("backward", 3, None)]
        return
    assert contracting[1][:2] == ("backward", 4) and contracting[1][2] > 1e5
    rest = [("recomputed", 1, None), ("backward", 3, None)] if way == "auto" else []
    assert contracting[2:] == rest


def test_auto_heals_only_the_segments_that_were_lost():
    """The rate is large after t = 1 only."""

    def func(t, y, rates):
        return -(rates[0] if t < 1 else rates[1]) * (y - anp.cos(t))

    def end(rates):
        return odeint(func, [1.2], [0.0, 1.0, 2.0], rates, method="lsoda", options={"jump_t": [1.0]})[-1, 0]

    with record_solves() as solves:
        grad(end)(np.array([0.5, 60.0]))
    assert [solve.direction for solve in solves] == ["forward", "forward", "backward", "recomputed", "backward", "backward"]


def falling(t, y, p):
    """y_0 falls onto 1 from 1.5, y_1 = p int y_0^2 dt; further components stay."""
    return anp.concatenate([anp.array([-10.0 * (y[0] - 1.0), p * y[0] ** 2]), 0.0 * y[2:]])


def falling_derivative(end):
    return end + 0.1 * (1 - np.exp(-10 * end)) + 0.0125 * (1 - np.exp(-20 * end))


LOOSE = {"rtol": 1e-3, "atol": 1e-3}
LOOSE_FOR_Z = {"rtol": 1e-10, "atol": 1e-3}


@pytest.mark.parametrize(
    "method, end, idle, tolerances",
    [
        ("adams", 0.9, 0, LOOSE),
        ("bdf", 0.8, 0, LOOSE),
        ("lsoda", 1.1, 0, LOOSE),
        ("dopri5", 1.2, 0, LOOSE),
        ("adams", 1.6, 0, LOOSE_FOR_Z),
        ("lsoda", 1.8, 0, LOOSE_FOR_Z),
        ("dop853", 1.8, 0, LOOSE_FOR_Z),
        ("radau", 2.0, 0, LOOSE_FOR_Z),
        ("adams", 1.7, 1000, {}),
        ("dopri5", 1.7, 1000, {}),
    ],
)
def test_a_component_that_is_lost_counts_at_loose_tolerances_and_among_many(method, end, idle, tolerances):
    def derivative(way):
        options = {"reconstruction": way}
        y0 = np.concatenate([[1.5, 0.0], np.ones(idle)])
        return grad(lambda p: odeint(falling, y0, [0.0, end], p, method=method, adjoint_options=options, **tolerances)[-1, 1])(
            1.0
        )

    assert derivative("auto") == pytest.approx(falling_derivative(end), rel=0.02)
    with pytest.warns(GradientWarning, match="lost z"):
        wrong = derivative("solve")
    assert abs(wrong / falling_derivative(end) - 1) > 0.05


def test_checkpoints_with_interpolation_keep_one_segment_at_a_time():
    """Each is solved forwards again when its turn comes."""
    with record_solves() as solves:
        relaxation_gradient(60.0, "lsoda", adjoint_options={"reconstruction": "interpolate", "checkpoint": 3})
    assert [solve.direction for solve in solves] == ["forward", *(4 * ["recomputed", "backward"])]


def test_a_func_that_is_wrong_backwards_only_is_not_asked_there():
    """Its own exception, on the way back, in a state that the forward solve never came to, leads to the interpolant."""

    def guarded(t, y, rate):
        if np.abs(getval(y)).max() > 5.0:
            raise RuntimeError("out of range")
        return relaxation(t, y, rate)

    got = grad(lambda rate: odeint(guarded, [1.2], [0.0, 1.0], rate, method="lsoda")[-1, 0])(60.0)
    assert got == pytest.approx(relaxation_derivative(60.0), rel=1e-5)


def test_an_attempt_that_cannot_end_well_is_given_up():
    """VODE's BDF on the way back along a slow manifold takes ever smaller steps: 16 times the forward solve's evaluations."""

    def last(mu, **adjoint_options):
        y = odeint(
            van_der_pol,
            [2.0, 0.0],
            [0.0, 5.0],
            mu,
            method="bdf",
            rtol=1e-6,
            atol=1e-8,
            options=stiff("bdf"),
            adjoint_options=adjoint_options,
        )
        return y[-1, 0]

    with record_solves() as solves:
        got = grad(last)(50.0)
    forward, attempt, *_ = solves
    assert attempt.direction == "backward" and attempt.reconstruction_gap == np.inf
    assert attempt.nfe <= 4 * forward.nfe + 501
    assert got == pytest.approx(grad(last)(50.0, reconstruction="interpolate"), rel=1e-12)

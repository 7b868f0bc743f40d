"""Times: large ones, close and repeated ones, long and short spans, ends that func has no values beyond, integers."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import getval, isbox

from solvers_bridge import SolverError, odeint, record_solves
from solvers_bridge.interpolant import Interpolant
from tests.helpers import ADAPTIVE, ADAPTIVE_FAMILIES, FAMILIES, FIXED, every_adaptive, some_fast

METHODS = ADAPTIVE + FIXED
every_method = pytest.mark.parametrize("method", METHODS)
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def decay(t, y, rate):
    return -rate * y


def grid(method, step_size=0.01):
    return {"step_size": step_size} if method in FIXED else {}


# --- Integers have floating-point gradients.


@every_method
@pytest.mark.parametrize("dtype", [int, np.int32])
def test_gradients_of_integers(method, dtype):
    y0, t = np.array([3, 4]).astype(dtype), np.array([0, 2])
    rel = 1e-3 if method == "euler" else 1e-6

    def end(y0, t):
        return anp.sum(odeint(decay, y0, t, 0.25, method=method, options=grid(method))[-1])

    y0_bar, t_bar = grad(end, 0)(y0, t), grad(end, 1)(y0, t)
    assert y0_bar.dtype == t_bar.dtype == float
    np.testing.assert_allclose(y0_bar, [0.606531, 0.606531], rtol=rel)
    slope = 0.25 * y0.sum() * np.exp(-0.5)
    np.testing.assert_allclose(t_bar, [slope, -slope], rtol=rel)


def test_a_gradient_of_float32_stays_float32():
    y0_bar = grad(lambda y0: anp.sum(odeint(decay, y0, [0.0, 1.0], 0.25)[-1]))(np.ones(2, np.float32))
    assert y0_bar.dtype == np.float32


# --- Far from zero.


def oscillator(t, y, stiffness):
    return anp.array([y[1], -stiffness * y[0]])


FAR = ((1.7e9, 5.0), (1.7e12, 5.0), (-1.7e12, -5.0))


@pytest.mark.parametrize(
    "method, start, length",
    some_fast(
        [(method, *far) for method in (*ADAPTIVE, "rk4") for far in FAR],
        *((method, *far) for method in FAMILIES if method != "radau" for far in FAR),
    ),
)
def test_large_times_are_as_good_as_small_ones(method, start, length):
    """Seconds and milliseconds since 1970. An autonomous system takes the very steps that it takes from zero."""

    def solve(start):
        def end(stiffness):
            t = start + np.array([0.0, 2.0, 5.0]) * np.sign(length)
            return odeint(oscillator, [1.0, 0.0], t, stiffness, method=method, options=grid(method, 0.05), **TIGHT)[-1, 0]

        return end(4.0), grad(end)(4.0)

    np.testing.assert_allclose(solve(start), solve(0.0), rtol=0, atol=1e-8)
    # y_1 = cos(sqrt(stiffness) t).
    np.testing.assert_allclose(solve(start), [np.cos(10), -1.25 * np.sin(10)], atol=1e-4 if method == "rk4" else 2e-6)


@pytest.mark.parametrize("method", ["adams", "lsoda", "dopri5", "dop853", "radau"])
def test_func_gets_the_callers_own_times_far_from_zero(method):
    """y' = cos(t - 1.7e9): func, the recorded steps, dense output and derivatives by t all count from zero."""
    start, seen = 1.7e9, []

    def func(t, y, params):
        seen.append(float(getval(t)))
        return anp.cos(t - start) * anp.ones(1)

    t = start + np.array([0.0, 1.0, 3.0])
    with record_solves(steps=True, dense=True) as solves:
        states = odeint(func, [0.0], t, method=method, **TIGHT)
    np.testing.assert_allclose(states[:, 0], np.sin(t - start), atol=1e-6)
    assert min(seen) == start and start <= solves[0].t[0] < solves[0].t[-1]
    np.testing.assert_allclose(solves[0].dense_output(start + 2.0), np.sin(2.0), atol=1e-5)
    t_bar = grad(lambda t: odeint(func, [0.0], t, method=method, **TIGHT)[-1, 0])(t)
    np.testing.assert_allclose(t_bar, [-1.0, 0.0, np.cos(3.0)], atol=1e-5)


def test_a_failure_far_from_zero_is_told_in_the_callers_time():
    def func(t, y, params):
        return y**2

    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        odeint(func, [1.0], [1.7e9, 1.7e9 + 2.0])
    assert 1.7e9 + 0.9 < info.value.t_reached < 1.7e9 + 1.1


# --- Long spans.


@every_adaptive
@pytest.mark.parametrize("reconstruction", ["auto", "interpolate"])
def test_gradients_over_long_times(method, reconstruction):
    """10^17 seconds, the age of the universe, with a component at zero."""

    def end(rate):
        options = {"reconstruction": reconstruction}
        return anp.sum(odeint(decay, [1.0, 0.0], [0.0, 5e16, 1e17], rate, method=method, adjoint_options=options)[-1])

    assert grad(end)(1e-17) == pytest.approx(-1e17 * np.exp(-1), rel=1e-6)


@every_adaptive
def test_short_spans(method):
    def end(rate):
        return odeint(decay, [1.0, 0.0], [0.0, 1e-17], rate, method=method)[-1, 0]

    assert end(1e17) == pytest.approx(np.exp(-1), rel=1e-6)
    assert grad(end)(1e17) == pytest.approx(-1e-17 * np.exp(-1), rel=1e-5)


# --- The greatest and the first step.


def pulse(t, y, params):
    return np.array([1.0 if 2.45 < t < 2.65 else 0.0])


@every_adaptive
@pytest.mark.parametrize("first_step", [None, 5.0])
def test_max_step_holds_after_every_output(method, first_step):
    """A pulse that greater steps would not see."""
    options = {"max_step": 0.1} if first_step is None else {"max_step": 0.1, "first_step": first_step}
    for sign in (1.0, -1.0):
        with record_solves(steps=True) as solves:
            states = odeint(
                lambda t, y, params: sign * pulse(sign * t, y, params),
                [0.0],
                sign * np.array([0.0, 2.0, 50.0]),
                method=method,
                options=options,
            )
        np.testing.assert_allclose(states[:, 0], [0.0, 0.0, 0.2], atol=2e-6)
        assert np.abs(solves[0].step_sizes).max() < 0.1 * (1 + 1e-9)


# --- Close and repeated times.


def sums(method, t, weights, adjoint_method=None):
    """sum_i weights_i y(t_i), and its gradient with respect to the rate and t."""

    def loss(rate, t):
        options = grid(method, 0.05)
        states = odeint(decay, [1.0, 0.5], t, rate, method=method, options=options, adjoint_method=adjoint_method, **TIGHT)
        return anp.sum(weights * anp.sum(states, axis=1))

    return loss(0.5, np.array(t)), *grad(loss, (0, 1))(0.5, np.array(t))


@pytest.mark.parametrize(
    "method, adjoint_method", [*((method, None) for method in METHODS), ("dopri5", "discrete"), ("rk4", "discrete")]
)
@pytest.mark.parametrize("ulps, sign", [(0, -1.0), (1, 1.0), (12, -1.0)])
def test_times_next_to_each_other(method, adjoint_method, ulps, sign):
    """A union of grids: the states are those without the double, and so are the gradients, t's shared out between the two."""
    close = 0.7 + ulps * np.spacing(0.7)
    weights = np.array([1.0, 2.0, 4.0, 8.0])
    value, rate_bar, t_bar = sums(method, sign * np.array([0.0, 0.7, close, 2.0]), weights, adjoint_method)
    want, want_rate_bar, want_t_bar = sums(method, sign * np.array([0.0, 0.7, 2.0]), np.array([1.0, 6.0, 8.0]), adjoint_method)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    np.testing.assert_allclose(rate_bar, want_rate_bar, rtol=1e-10)
    np.testing.assert_allclose([t_bar[0], t_bar[1] + t_bar[2], t_bar[3]], want_t_bar, rtol=1e-9)


@every_method
def test_repeated_times_repeat_states(method):
    t = [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    states = odeint(decay, [1.0], t, 0.5, method=method, options=grid(method))
    plain = odeint(decay, [1.0], [0.0, 1.0, 2.0], 0.5, method=method, options=grid(method))
    assert (states == plain[[0, 0, 1, 1, 1, 2, 2]]).all()


@every_method
def test_intervals_of_no_length(method):
    def loss(y0):
        return anp.sum(odeint(decay, y0, [3.0, 3.0], 0.5, method=method)[-1] ** 2)

    np.testing.assert_array_equal(odeint(decay, [1.0, 2.0], [3.0, 3.0], 0.5, method=method), [[1.0, 2.0], [1.0, 2.0]])
    np.testing.assert_array_equal(grad(loss)(np.array([1.0, 2.0])), [2.0, 4.0])
    assert (odeint(decay, [1.0], [3.0], 0.5, method=method) == [[1.0]]).all()


@every_adaptive
def test_checkpoints_between_close_times(method):
    """checkpoint=K makes times of its own, some a rounding away from those that are given."""
    t = [0.0, 1 / 3, np.nextafter(1 / 3, 1), 0.1 * 3 + 0.1 * 3, 1.0]

    def loss(rate):
        return anp.sum(odeint(decay, [1.0], t, rate, method=method, adjoint_options={"checkpoint": 9}, **TIGHT))

    assert grad(loss)(0.5) == pytest.approx(-sum(s * np.exp(-0.5 * s) for s in t), rel=1e-6)


def test_second_derivatives_with_repeated_times():
    def loss(rate):
        return anp.sum(odeint(decay, [1.0], [0.0, 0.7, 0.7, np.nextafter(0.7, 1), 2.0], rate, **TIGHT))

    want = 3 * 0.7**2 * np.exp(-0.35) + 4 * np.exp(-1.0)
    assert grad(grad(loss))(0.5) == pytest.approx(want, rel=1e-5)


# --- Ends that func has no values beyond.


def to_the_end(t, y, params):
    """y' = -sqrt(1 - t) y, defined on [0, 1]."""
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"t = {t} is not in the table")
    return -anp.sqrt(1 - t) * y


KNOWN = {"reconstruction": "interpolate"}
TO_THE_END = {0.0: 1.0, 0.5: np.exp(2 / 3 * (0.5**1.5 - 1)), 1.0: np.exp(-2 / 3)}


@every_method
@pytest.mark.parametrize("t", [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0]], ids=str)
@pytest.mark.parametrize("stay_inside", [None, True])
def test_a_func_that_raises_outside(method, t, stay_inside):
    options = grid(method, 1e-3) if stay_inside is None else {"stay_inside": True, **grid(method, 1e-3)}
    states = odeint(to_the_end, [1.0], t, method=method, options=options)[:, 0]
    want = np.array([TO_THE_END[time] for time in t])
    np.testing.assert_allclose(states, want / want[0], rtol=2e-3 if method == "euler" else 2e-5 if method == "midpoint" else 5e-6)


@pytest.mark.parametrize("method", ["adams", "bdf", "lsoda"])
def test_what_is_kept_of_a_solve_that_began_again_is_of_its_second_beginning(method, monkeypatch):
    """The integrator asks func beyond the end, and begins again inside: its interpolant is of one solve, not of one and a half."""
    cleared, forget = [], Interpolant.__delitem__
    monkeypatch.setattr(Interpolant, "__delitem__", lambda self, steps: cleared.append(len(self)) or forget(self, steps))
    with record_solves(dense=True) as solves:
        bar = grad(lambda y0: odeint(to_the_end, y0, [0.0, 1.0], method=method, adjoint_options=KNOWN)[-1, 0])(np.ones(1))
    assert cleared and max(cleared) > 10
    np.testing.assert_allclose(bar, TO_THE_END[1.0], rtol=1e-5)
    dense = solves[0].dense_output
    assert np.all(np.diff(dense.ends) > 0)
    np.testing.assert_allclose(dense(0.5), TO_THE_END[0.5], rtol=1e-5)


@every_adaptive
@pytest.mark.parametrize("t", [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]], ids=str)
def test_stay_inside_is_kept(method, t):
    """On the way back as well, and in second derivatives; the steps recorded or not."""
    asked = []

    def func(t, y, rate):
        while isbox(t):
            t = getval(t)
        asked.append(float(t))
        return -rate * y

    def loss(rate):
        return odeint(func, [1.0], t, rate, method=method, options={"stay_inside": True})[-1, 0]

    for steps in (False, True):
        with record_solves(steps=steps):
            grad(grad(loss))(0.5)
    assert min(asked) == 0.0 and max(asked) == 1.0


@every_adaptive
def test_a_table_with_exact_ends_has_gradients(method):
    """interp1d's way: linear between knots, an error beyond them."""
    knots, values = np.linspace(0.0, 1.0, 5), np.array([1.0, 2.0, 0.0, 1.0, 3.0])

    def table(t, y, rate):
        if not 0.0 <= t <= 1.0:
            raise ValueError("out of the table")
        return rate * np.interp(float(getval(t)), knots, values) * anp.ones(1)

    def loss(rate):
        return odeint(table, [0.0], [0.0, 0.5, 1.0], rate, method=method, adjoint_options={"reconstruction": "auto"})[-1, 0]

    area = np.sum((values[1:] + values[:-1]) / 2) / 4
    assert grad(loss)(2.0) == pytest.approx(area, rel=1e-5)


@pytest.mark.parametrize(
    "method, reconstruction",
    some_fast(
        [(method, way) for method in ADAPTIVE_FAMILIES for way in ("auto", "solve", "interpolate")],
        *((method, "auto") for method in ADAPTIVE_FAMILIES),
        *(("adams", way) for way in ("solve", "interpolate")),
    ),
)
def test_a_derivative_by_t_that_is_infinite_where_nobody_asks_for_it(method, reconstruction):
    """y' = p sqrt(t) from t = 0."""

    def end(p):
        return odeint(
            lambda t, y, p: p * anp.sqrt(t) * anp.ones(1),
            [0.0],
            [0.0, 0.8],
            p,
            method=method,
            adjoint_options={"reconstruction": reconstruction},
        )[-1, 0]

    assert grad(end)(1.0) == pytest.approx(2 / 3 * 0.8**1.5, rel=1e-5)
    assert grad(end)(1.0) == pytest.approx(0.47703, rel=1e-4)


@pytest.mark.parametrize("method", ("adams", "rk4"))
def test_times_that_cannot_be_told_apart_are_refused(method):
    def f(t, y, _):
        return -2e5 * y

    with pytest.raises(ValueError, match=r"too far from zero to tell them apart .*give t - t\[0\]"):
        odeint(f, 1.0, 1.7e9 + np.arange(8) * 1e-6, method=method)
    few = np.array([0.0, 0.7, np.nextafter(0.7, 1.0), 2.0])
    assert odeint(lambda t, y, _: -y, 1.0, few, method=method).shape == (4,)

"""Times at which func jumps (options["jump_t"]): the solve restarts there, and func is asked on this side only."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp, value_and_grad
from autograd.test_util import check_grads
from autograd.tracer import getval

from solvers_bridge import SolverError, TensorFlowDynamics, odeint, record_solves
from tests.helpers import ADAPTIVE, FAMILIES, FIXED, some_fast

METHODS = ADAPTIVE + FIXED
DISCRETE = ("dopri5", "dop853", *FIXED)
TIMES = ([0.0, 2.0], [2.0, 1.0, 0.3, 0.0])  # with the jump inside, and at an output
TOLERANCE = {"euler": 4e-2, "midpoint": 5e-4}
every_method = pytest.mark.parametrize("method", METHODS)


def options(method, **more):
    return {"step_size": 0.02 if method == "rk4" else 0.01, **more} if method in FIXED else more


def switched(t, y, rate):
    """y(2) = y(0) exp(rate - 2 rate)."""
    return (rate if t < 1 else -2 * rate) * y


def end(rate, times, method, y0=1.0, **means):
    means = {"rtol": 1e-8, "atol": 1e-8, "options": options(method, jump_t=[1.0]), **means}
    return odeint(switched, anp.array([y0]), times, rate, method=method, **means)[-1, 0]


@pytest.mark.parametrize(
    "times, method",
    some_fast(
        [(times, method) for times in TIMES for method in (*ADAPTIVE, *FIXED)],
        *((times, method) for times in TIMES for method in FAMILIES if method != "radau" or times is TIMES[1]),
    ),
    ids=str,
)
def test_value_and_derivatives(times, method):
    direction = -1.0 if times[0] == 0 else 1.0
    want = np.exp(0.5 * direction)
    rtol = TOLERANCE.get(method, 5e-6)
    np.testing.assert_allclose(end(0.5, times, method), want, rtol=rtol)
    np.testing.assert_allclose(grad(end)(0.5, times, method), direction * want, rtol=rtol)
    np.testing.assert_allclose(grad(lambda y0: end(0.5, times, method, y0))(1.0), want, rtol=rtol)
    np.testing.assert_allclose(grad(grad(end))(0.5, times, method), want, rtol=rtol)


@pytest.mark.parametrize("method", DISCRETE)
@pytest.mark.parametrize("times", TIMES, ids=str)
def test_discrete_gradients(times, method):
    """The gradient of the steps taken is that of the flow but for their error."""
    means = {"adjoint_method": "discrete"}
    direction = -1.0 if times[0] == 0 else 1.0
    rtol = TOLERANCE.get(method, 1e-6)
    np.testing.assert_allclose(end(0.5, times, method, **means), np.exp(0.5 * direction), rtol=rtol)
    np.testing.assert_allclose(grad(end)(0.5, times, method, **means), direction * np.exp(0.5 * direction), rtol=rtol)


@pytest.mark.parametrize("reconstruction", ["solve", "interpolate"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_each_way_of_the_reverse_sweep(method, reconstruction):
    def loss(rate):
        return end(rate, [0.0, 2.0], method, adjoint_options={"reconstruction": reconstruction})

    np.testing.assert_allclose(grad(loss)(0.5), -np.exp(-0.5), rtol=5e-6)


@every_method
@pytest.mark.parametrize("times", TIMES, ids=str)
def test_func_is_asked_on_this_side_only(times, method):
    """Every evaluation of a piece lies strictly on its side of the jump, and inside of the outer times."""
    asked = []

    def func(t, y, params):
        asked.append(float(t))
        return -y

    with record_solves() as solves:
        odeint(func, [1.0], times, method=method, options=options(method, jump_t=[1.0]))
    assert len(solves) == 2
    first, second = asked[: solves[0].nfe], asked[solves[0].nfe :]
    low, high = (first, second) if times[0] == 0 else (second, first)
    assert 0.0 <= min(low) and max(low) < 1.0 < min(high) and max(high) <= 2.0


@pytest.mark.parametrize("method", ["midpoint", "rk4"])
def test_the_restart_keeps_the_order_of_a_fixed_grid(method):
    """A jump inside a step costs all orders but the first."""

    def error(**more):
        return abs(end(0.5, [0.0, 2.5], method, options={"step_size": 0.4, **more}) - np.exp(-1.0))

    assert error(jump_t=[1.0]) < {"midpoint": 0.4, "rk4": 0.1}[method] * error()


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_restart_saves_evaluations(method):
    costs = {}
    for jump_t in ([], [1.0]):
        with record_solves() as solves:
            end(0.5, [0.0, 2.0], method, options={"jump_t": jump_t})
        costs[len(jump_t)] = sum(solve.nfe for solve in solves)
    # Multistep codes begin at order 1 again, which costs them what the rejected steps would.
    assert costs[1] < (1.5 if method in ("adams", "bdf", "lsoda") else 1.0) * costs[0]


@pytest.mark.parametrize("method", ["adams", "dopri5", "rk4"])
def test_jumps_elsewhere_change_nothing(method):
    """Before the first time, after the last, and at the ends themselves."""
    plain = odeint(lambda t, y, _: -y, [1.0], [0.0, 1.0], method=method)
    many = odeint(lambda t, y, _: -y, [1.0], [0.0, 1.0], method=method, options={"jump_t": [-1.0, 7.0]})
    assert (plain == many).all()
    ends = odeint(lambda t, y, _: -y, [1.0], [0.0, 1.0], method=method, options={"jump_t": [0.0, 1.0]})
    np.testing.assert_allclose(ends, plain, rtol=1e-6)


@pytest.mark.parametrize("method", ["adams", "lsoda", "dop853", "radau"])
def test_several_jumps_and_times_that_are_differentiated(method):
    """A square wave, integrated: y(t) = sum of the switched-on lengths; dy/dt_end = the wave there."""

    def wave(t, y, height):
        return height * anp.ones(1) * (1.0 if int(np.floor(getval(t))) % 2 == 0 else 0.0)

    def last(args):
        times, height = args
        return odeint(wave, anp.zeros(1), times, height, method=method, options={"jump_t": [1.0, 2.0, 3.0, 4.0]})[-1, 0]

    times = np.array([0.5, 1.5, 2.5, 4.25])
    np.testing.assert_allclose(last((times, 2.0)), 2 * (0.5 + 1.0 + 0.25), rtol=1e-6)
    t_bar, height_bar = grad(last)((times, 2.0))
    np.testing.assert_allclose(t_bar, [-2.0, 0.0, 0.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(height_bar, 1.75, rtol=1e-6)


def test_both_modes_agree_with_differences():
    def halves(t, y, rates):
        return rates[0 if t < 1 else 1] * y

    def loss(rates):
        return odeint(halves, anp.ones(1), [0.0, 2.0], rates, rtol=1e-9, atol=1e-9, options={"jump_t": [1.0]})[-1, 0]

    check_grads(loss, modes=("rev", "fwd"), order=1)(np.array([0.3, -0.7]))


@pytest.mark.parametrize(
    "method, means, jump",  # float32 rounds 0.3 up and 0.7 down
    [("adams", {}, 0.3), ("adams", {}, 0.7), ("dopri5", {"adjoint_method": "discrete"}, 0.3)],
)
def test_a_jump_that_single_precision_rounds(method, means, jump):
    """The time of a jump is none of float32's, and belongs to either side: func is asked for neither's value on the other."""
    tf = pytest.importorskip("tensorflow")
    for inside in (tf.less, tf.less_equal):

        def func(t, z, rate, inside=inside):
            return tf.where(inside(t, tf.cast(jump, t.dtype)), rate, -2 * rate) * tf.ones_like(z)

        def end(rate, times, func=func):
            return odeint(
                TensorFlowDynamics(func, "float32"),
                anp.zeros(1),
                times,
                rate,
                method=method,
                options=options(method, jump_t=[jump]),
                **means,
            )[-1, 0]

        for times, sign in (([0.0, 1.0], 1.0), ([1.0, 0.0], -1.0)):
            with record_solves() as solves:
                value, slope = value_and_grad(end)(1.0, times)
            want = sign * (jump - 2 * (1 - jump))
            np.testing.assert_allclose([value, slope], want, rtol=1e-6)
            assert sum(solve.nfe for solve in solves) < 100


WEIGHTS = np.array([0.3, 0.7, -0.4])
MEANS = ({}, {"adjoint_options": {"reconstruction": "interpolate"}}, {"adjoint_method": "discrete"})


def of_times(method, **means):
    """L(t) of the states of dy/dt = r y, r = 1 before t = 1 and 3 from then on, and what its gradient by t has to be."""

    def func(t, y, params):
        return (1.0 if getval(t) < 1.0 else 3.0) * y

    means = {"rtol": 1e-8, "atol": 1e-8, "options": options(method, jump_t=[1.0]), **means}

    def loss(t):
        return anp.sum(WEIGHTS * odeint(func, anp.array([1.2]), t, (), method=method, **means)[:, 0])

    def expected(t):
        forwards = t[-1] > t[0]
        exponent = np.where(t < 1, t, 1.0) + 3 * np.where(t < 1, 0.0, t - 1)
        states = 1.2 * np.exp(exponent - exponent[0])
        # On the side from which the solve comes; at the beginning, to which it goes.
        rates = np.where((t < 1) | ((t == 1) & forwards), 1.0, 3.0)
        bars = WEIGHTS * rates * states
        bars[0] = -rates[0] * np.sum(WEIGHTS[1:] * states[1:])
        return bars

    return loss, expected


@pytest.mark.parametrize(
    "method, means",
    some_fast(
        [(method, means) for method in (*ADAPTIVE, "rk4") for means in MEANS if method in DISCRETE or means is not MEANS[2]],
        ("adams", MEANS[0]),
        ("lsoda", MEANS[1]),
        ("dopri5", MEANS[2]),
        ("rk4", MEANS[0]),
    ),
    ids=str,
)
@pytest.mark.parametrize("t", [[0.0, 0.5, 2.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], ids=str)
def test_derivatives_by_every_time(t, method, means):
    """dL/dt0 = -a(t0) . f(t0, y0) has no share of what func jumps by; at an output there, all ways take the same side."""
    loss, expected = of_times(method, **means)
    t, rtol = np.array(t), 1e-5
    found = grad(loss)(t)
    np.testing.assert_allclose(found, expected(t), rtol=rtol, atol=rtol)
    if means is MEANS[2]:
        return
    forward = [make_jvp(loss)(t)(direction)[1] for direction in np.eye(3)]
    np.testing.assert_allclose(forward, expected(t), rtol=rtol, atol=rtol)
    # By t0 twice is -r of by t0 once: every state is y0 exp(-r t0) times what does not depend on t0.
    rate = 3.0 if t[0] > 1 else 1.0
    np.testing.assert_allclose(grad(lambda t: grad(loss)(t)[0])(t)[0], -rate * expected(t)[0], rtol=1e-4)


@pytest.mark.parametrize("method", ["adams", "lsoda", "dopri5", "radau", "rk4"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_jump_beside_an_output_time_is_where_it_was_said(method, backwards):
    """np.arange(7) * 0.1 has 0.30000000000000004 for 0.3: neither side of the jump is asked from the other."""
    t = np.arange(7) * 0.1
    assert t[3] != 0.3
    asked = []

    def func(t, y, params):
        asked.append(float(getval(t)))
        return anp.where(t < 0.3, 1.0, 3.0) * anp.ones_like(y)

    def last(t, y0):
        return odeint(func, y0, t, (), method=method, options=options(method, jump_t=[0.3]), rtol=1e-8, atol=1e-8)[-1, 0]

    t = t[::-1] if backwards else t
    value, (t_bar, y0_bar) = last(t, np.zeros(1)), grad(last, (0, 1))(t, np.zeros(1))
    sign = -1.0 if backwards else 1.0
    np.testing.assert_allclose(value, sign * 1.2, rtol=1e-12)
    np.testing.assert_allclose([t_bar[0], t_bar[-1], y0_bar[0]], [-3.0, 1.0, 1.0] if backwards else [-1.0, 3.0, 1.0], rtol=1e-7)
    assert not any(0.3 < time < t[3 if not backwards else -4] for time in asked)


def test_jumps_of_the_adjoint_are_those_of_func():
    with pytest.raises(ValueError, match=r"adjoint_options\['jump_t'\] must be times of options\['jump_t'\]"):
        odeint(switched, [1.0], [0.0, 2.0], 0.5, adjoint_options={"jump_t": [1.0]})
    odeint(switched, [1.0], [0.0, 2.0], 0.5, options={"jump_t": [1.0, 1.5]}, adjoint_options={"jump_t": [1.0]})


@pytest.mark.parametrize(
    "method, means", [("dopri5", MEANS[1]), ("lsoda", MEANS[1]), ("dopri5", MEANS[2]), ("dop853", MEANS[2])], ids=str
)
def test_a_piece_that_is_solved_again_leaves_those_before_it(method, means):
    """Behind the jump the integrator's guess of a first step is next to nothing, and that piece begins anew with another."""

    def func(t, s, rate):
        y = s[0]
        return anp.array([rate * y, 0.0]) if t < 1.0 else anp.array([0.0, 1e150 * y])

    def last(rate):
        solver = {"method": method, "options": {"jump_t": [1.0]}, "rtol": 1e-8, "atol": 1e-8, **means}
        return odeint(func, np.array([1.0, 0.0]), [0.0, 2.0], rate, **solver)[-1, 1] / 1e150

    np.testing.assert_allclose([last(0.5), grad(last)(0.5)], np.exp(0.5), rtol=1e-5)


@pytest.mark.parametrize("method", (*FIXED, "rk4_38"))
def test_discrete_counts_and_watches_the_slope_at_a_jump(method):
    means = {"method": method, "adjoint_method": "discrete", "options": {"step_size": 0.25, "jump_t": [0.5]}}
    asked = []
    with record_solves() as solves:
        odeint(lambda t, y, p: asked.append(t) or -y, 1.0, [0.0, 1.0, 1.7], **means)
    assert solves[0].nfe == len(asked)
    # Of Euler's, no other evaluation is there.
    with pytest.raises(SolverError, match="not finite"):
        odeint(lambda t, y, p: np.nan if 0.49 < t < 0.5 else 1.0, 1.0, [0.0, 1.0, 1.7], **means)


@pytest.mark.parametrize("t, jump, right", [([0.0, 3.0], 0.9, -1.1), ([3.0, 0.0], 0.3, 3.7)])
@pytest.mark.parametrize(
    "method, options", [("euler", {"step_size": 0.5}), ("rk4", {"step_size": 1.0}), ("dopri5", {}), ("adams", {})]
)
def test_a_checkpoint_beside_a_jump_does_not_hide_it(method, options, t, jump, right):
    """The ninth part of the way is an ulp before 0.9."""

    def f(t, y, _):
        return anp.where(t < jump, 0.0, -1.0) * anp.ones_like(y)

    options = {"jump_t": [jump], **options}
    y = odeint(f, np.ones(1), t, method=method, options=options, adjoint_options={"checkpoint": 9})
    assert y[-1, 0] == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize("more", ({}, {"adjoint_method": "discrete"}))
def test_a_jump_between_close_output_times(more):
    ulp = np.spacing(0.9)
    t = [0.0, 0.9 - 20 * ulp, 0.9 - 10 * ulp, 3.0]
    options = {"jump_t": [0.9], "step_size": 3.0}
    y = odeint(lambda t, y, _: anp.where(t < 0.9, 0.0, -1.0) * y**0, np.ones(1), t, method="euler", options=options, **more)
    np.testing.assert_allclose(y[:, 0], [1.0, 1.0, 1.0, -1.1], rtol=1e-9)

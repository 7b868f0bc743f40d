"""Times at which func jumps (options["jump_t"]): the solve restarts there, and func is asked on this side only."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, value_and_grad
from autograd.test_util import check_grads
from autograd.tracer import getval

from solvers_bridge import TensorFlowDynamics, odeint, record_solves
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

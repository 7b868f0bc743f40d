"""odeint_event: where the event lies, the state there, derivatives of both, and what is refused."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, hessian, jacobian, make_jvp

from solvers_bridge import SolverError, odeint_event, record_solves
from tests.helpers import ADAPTIVE, FIXED, some_fast

ALL = (*ADAPTIVE, *FIXED)
H, V, G, T0 = 2.0, 1.0, 9.8, 0.5  # height, speed, gravity, start


def ball(t, y, g):
    return anp.array([y[1], -g])


def height(t, y, g):
    return y[0]


def means_of(method):
    options = {"step_size": {"euler": 1e-3, "midpoint": 0.02, "rk4": 0.05}[method]} if method in FIXED else {}
    return {"method": method, "rtol": 1e-9, "atol": 1e-9, "options": options}


def fall(h, v, g, t0, **means):
    return odeint_event(ball, anp.array([h, v]), t0, height, g, **{"rtol": 1e-9, "atol": 1e-9, **means})


def fall_exactly(h, v, g, t0):
    """(time, speed) of the impact."""
    impact = anp.sqrt(v**2 + 2 * g * h)
    return t0 + (v + impact) / g, -impact


@pytest.mark.parametrize("method", ALL)
def test_a_ball_falls(method):
    """Time, state and all derivatives against the closed form."""
    arguments, tolerance = (H, V, G, T0), 1e-3 if method == "euler" else 1e-7
    t_event, y_event = fall(*arguments, **means_of(method))
    time, speed = fall_exactly(*arguments)
    np.testing.assert_allclose([t_event, *y_event], [time, 0.0, speed], rtol=tolerance, atol=2 * tolerance)
    for part in (lambda *a: fall(*a, **means_of(method))[0], lambda *a: fall(*a, **means_of(method))[1][1]):
        exactly = fall_exactly_time if part(*arguments) > 0 else fall_exactly_speed
        bars = grad(part, (0, 1, 2, 3))(*arguments)
        np.testing.assert_allclose(bars, grad(exactly, (0, 1, 2, 3))(*arguments), rtol=tolerance, atol=5 * tolerance)


def fall_exactly_time(*arguments):
    return fall_exactly(*arguments)[0]


def fall_exactly_speed(*arguments):
    return fall_exactly(*arguments)[1]


def oscillator(t, y, w):
    return {"x": y["p"], "p": -(w**2) * y["x"]}


def crossing(x0, p0, w, level, t0=0.0, **means):
    """Of x falling (rising, backwards in time) through a level that changes with time."""
    event = lambda t, y, w: y["x"] - level * (1 + 0.1 * t)
    return odeint_event(oscillator, {"x": x0, "p": p0}, t0, event, w, **{"rtol": 1e-9, "atol": 1e-9, **means})


@pytest.mark.parametrize("reverse_time", (False, True))
@pytest.mark.parametrize("method", some_fast(ADAPTIVE, "lsoda", "dopri5"))
def test_an_oscillator_against_finite_differences(method, reverse_time):
    """Nested state, an event that depends on t, both directions of time."""
    arguments = (np.array(1.0), np.array(0.3), 2.0)

    def outputs(x0, p0, w, method=method, tol=1e-9):
        t, y = crossing(x0, p0, w, 0.4, method=method, reverse_time=reverse_time, rtol=tol, atol=tol)
        return anp.array([t, y["x"], y["p"]])

    t_event, x, _ = outputs(*arguments)
    assert np.sign(t_event) == (-1 if reverse_time else 1) and abs(t_event) < 1
    assert x == pytest.approx(0.4 * (1 + 0.1 * t_event), abs=1e-8)
    for i in range(3):
        exactly = lambda h: outputs(*(a + h * (i == j) for j, a in enumerate(arguments)), method="dop853", tol=1e-12)
        expected = (exactly(1e-4) - exactly(-1e-4)) / 2e-4
        np.testing.assert_allclose(jacobian(outputs, i)(*arguments), expected, rtol=1e-5, atol=1e-6)


def test_derivatives_of_higher_order():
    arguments = np.array([H, V, G, T0])
    for part, exactly in (
        (lambda a: fall(*a, method="dopri5")[0], lambda a: fall_exactly(*a)[0]),
        (lambda a: fall(*a, method="dopri5")[1][1], lambda a: fall_exactly(*a)[1]),
    ):
        np.testing.assert_allclose(hessian(part)(arguments), hessian(exactly)(arguments), rtol=1e-6, atol=1e-8)
    third = grad(grad(grad(lambda h: fall(h, V, G, T0, method="dopri5")[0])))(H)
    assert third == pytest.approx(grad(grad(grad(lambda h: fall_exactly(h, V, G, T0)[0])))(H), rel=1e-5)
    mixed = grad(grad(lambda h, g: fall(h, V, g, T0)[0]), 1)(H, G)
    assert mixed == pytest.approx(grad(grad(lambda h, g: fall_exactly(h, V, g, T0)[0]), 1)(H, G), rel=1e-5)


def test_forward_mode():
    value, jvp = make_jvp(lambda h: fall(h, V, G, T0)[0])(H)(1.0)
    assert value == fall(H, V, G, T0)[0]
    assert jvp == pytest.approx(grad(lambda h: fall_exactly(h, V, G, T0)[0])(H), rel=1e-6)


def test_gradients_are_of_the_type_of_what_they_belong_to():
    def time(y0, t0, g, level):
        above = lambda t, y, p: y[0] - p[1]
        return odeint_event(lambda t, y, p: ball(t, y, p[0]), y0, t0, above, (g, level), method="dopri5")[0]

    arguments = [np.array(argument, np.float32) for argument in ([H, V], T0, G, 0.1)]
    assert [grad(time, i)(*arguments).dtype for i in range(4)] == [np.float32] * 4


def test_an_event_that_holds_what_is_differentiated():
    def time(level):
        return odeint_event(ball, np.array([H, V]), T0, lambda t, y, g: y[0] - level, G)[0]

    def exactly(level):
        return fall_exactly(H - level, V, G, T0)[0]

    assert grad(time)(0.3) == pytest.approx(grad(exactly)(0.3), rel=1e-6)
    assert grad(grad(time))(0.3) == pytest.approx(grad(grad(exactly))(0.3), rel=1e-5)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "radau", "rk4"))
def test_a_bouncing_ball(method):
    """Each bounce starts where the event is zero, give or take rounding; the n-th is at a time known in closed form."""

    def bounces(restitution, count=4):
        t, y, times = 0.0, anp.array([1.0, 0.0]), []
        for _ in range(count):
            t, y = odeint_event(ball, y, t, height, G, **means_of(method))
            times.append(t)
            y = anp.array([y[0], -restitution * y[1]])
        return anp.array(times)

    def exactly(restitution):
        first = np.sqrt(2 / G)
        return anp.array([first * (1 + 2 * sum(restitution**k for k in range(1, n + 1))) for n in range(4)])

    np.testing.assert_allclose(bounces(0.8), exactly(0.8), rtol=1e-6)
    np.testing.assert_allclose(jacobian(bounces)(0.8), jacobian(exactly)(0.8), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("start", (0.0, 1e-12, -1e-12))
def test_an_event_at_the_start_counts_once_left(start):
    t_event, _ = odeint_event(lambda t, y, p: anp.cos(t), start, 0.0, lambda t, y, p: y)
    assert t_event == pytest.approx(np.pi, abs=1e-6)


def test_the_search_ends_with_the_step_that_crosses():
    """A far t_max costs nothing, and neither does none."""
    with record_solves() as solves:
        for t_max in (None, 2.0, 1e6):
            assert fall(H, V, G, T0, t_max=t_max)[0] == pytest.approx(fall_exactly(H, V, G, T0)[0], rel=1e-8)
    assert sum(solve.nfe for solve in solves) < 300


def test_a_crossing_in_a_later_horizon():
    """Without t_max one unit of time is looked at first, then ten more, then a hundred more."""
    for scale in (1e-12, 50.0, 1e9):
        t_event, y_event = odeint_event(lambda t, y, k: -k * y, 1.0, 0.0, lambda t, y, k: y - 0.1, 1 / scale)
        assert t_event == pytest.approx(scale * np.log(10), rel=1e-6, abs=0) and y_event == pytest.approx(0.1, rel=1e-6)


def test_times_at_which_func_jumps():
    """Beyond the first horizon, too; y = 0, until a force is switched on at 20."""
    func = lambda t, y, p: anp.array([0.0 if t < 20 else p])
    slope = lambda p: odeint_event(func, np.array([0.0]), 0.0, lambda t, y, p: y[0] - 1, p, options={"jump_t": [20.0]})[0]
    assert slope(2.0) == pytest.approx(20.5, abs=1e-8)
    assert grad(slope)(2.0) == pytest.approx(-0.25, abs=1e-7)


def test_func_that_has_no_value_beyond_the_event():
    """Torricelli's tank, empty at 2 sqrt(h); the integrator's steps go beyond it, and are made again inside."""
    with np.errstate(invalid="ignore"):
        t_event, _ = odeint_event(lambda t, y, p: -anp.sqrt(y), 1.0, 0.0, lambda t, y, p: y - 1e-3, method="dopri5")
    assert t_event == pytest.approx(2 * (1 - np.sqrt(1e-3)), rel=1e-6)


def test_a_crossing_just_before_and_just_after_t_max():
    time = fall_exactly(H, V, G, T0)[0]
    assert fall(H, V, G, T0, t_max=time + 1e-4)[0] == pytest.approx(time, abs=1e-8)
    with pytest.raises(SolverError, match=r"did not cross zero between t = 0\.5 and"):
        fall(H, V, G, T0, t_max=time - 1e-4)


def test_no_crossing_without_t_max_ends():
    with pytest.raises(SolverError, match="max_num_steps = 300 steps") as info:
        odeint_event(oscillator_of_one, np.array([1.0, 0.0]), 0.0, lambda t, y, p: y[0] - 2, options={"max_num_steps": 300})
    assert info.value.t_reached > 1 and info.value.statistics is not None
    with pytest.raises(SolverError, match=r"did not cross zero between t = 0\.0 and 1e\+100"):
        odeint_event(lambda t, y, p: 0 * y, 1.0, 0.0, lambda t, y, p: y)


def oscillator_of_one(t, y, p):
    return anp.array([y[1], -y[0]])


# On y = 1 - t: what comes to zero at t = 1, and how it goes on.
COMING_TO_ZERO = {
    "stays": lambda t, y, p: anp.maximum(y, 0.0),
    "stays, from below": lambda t, y, p: anp.minimum(-y, 0.0),
    "jumps and stays": lambda t, y, p: anp.where(y > 0, 1.0, 0.0),
    "goes on later": lambda t, y, p: anp.maximum(y, 0.0) + anp.minimum(y + 0.1, 0.0),
}


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "radau"))
@pytest.mark.parametrize("event", COMING_TO_ZERO.values(), ids=COMING_TO_ZERO)
def test_an_event_that_stays_at_zero_lies_where_it_comes_there(event, method):
    t, y = odeint_event(lambda t, y, p: -1.0 + 0.0 * y, 1.0, 0.0, event, method=method)
    np.testing.assert_allclose([t, y], [1.0, 0.0], rtol=1e-7, atol=1e-7)


def test_the_derivative_of_an_event_that_stays_at_zero():
    def time_of(k):
        return odeint_event(lambda t, y, k: -k + 0.0 * y, 1.0, 0.0, COMING_TO_ZERO["stays"], k)[0]

    np.testing.assert_allclose(grad(time_of)(2.0), -0.25, rtol=1e-6)


def test_a_failing_solve_says_so():
    with pytest.raises(SolverError, match="max_num_steps|step"):
        odeint_event(lambda t, y, p: y**2, 1.0, 0.0, lambda t, y, p: y + 1, t_max=2.0, method="dopri5")


def test_a_crossing_without_a_slope():
    event = lambda t, y, p: (y - 1.0) ** 3
    t_event, _ = odeint_event(
        lambda t, y, p: 1.0 + 0 * y, 0.0, 0.0, event, method="dopri5", options={"max_step": 0.25, "first_step": 0.25}
    )
    assert t_event == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match="no derivative at its crossing"):
        grad(lambda y0: odeint_event(lambda t, y, p: 1.0 + 0 * y, y0, 0.0, lambda t, y, p: anp.sign(y - 1.0), t_max=3.0)[0])(0.0)


@pytest.mark.parametrize(
    "kwargs, kind, message",
    (
        ({"event": lambda t, y, g: y}, ValueError, r"one real number, got shape \(2,\); for several events, their product"),
        ({"event": lambda t, y, g: None}, TypeError, "event must return one real number"),
        ({"event": lambda t, y, g: y[0] > 0}, TypeError, "must return a number that changes its sign, got a boolean"),
        ({"event": lambda t, y, g: np.nan}, ValueError, r"event returned nan at t = 0\.5"),
        ({"event": "height"}, TypeError, "event must be a function"),
        ({"t_max": 0.5}, ValueError, "t_max must be other than t0 = 0.5"),
        ({"t_max": 1.0, "reverse_time": True}, ValueError, "t_max must be before t0 = 0.5, got 1.0"),
        ({"t_max": "late"}, TypeError, "t_max must be a number"),
        ({"t0": [0.0, 1.0]}, TypeError, "t0 must be a number"),
        ({"t0": np.inf}, ValueError, "t0 must be finite"),
        ({"reverse_time": 1}, TypeError, "reverse_time must be True or False"),
        ({"method": "rk4"}, ValueError, r"'rk4' needs options\['step_size'\]"),
        ({"rtol": -1}, ValueError, "rtol must be positive"),
    ),
    ids=str,
)
def test_what_is_refused(kwargs, kind, message):
    arguments = {"func": ball, "y0": np.array([H, V]), "t0": T0, "event": height, "params": G, **kwargs}
    with record_solves() as solves, pytest.raises(kind, match=message):
        odeint_event(**arguments)
    assert not solves


def test_exceptions_of_the_event_come_through():
    def event(t, y, g):
        if t > 0.6:
            raise KeyError("of the user")
        return y[0]

    for method in ("adams", "lsoda", "dopri5", "radau"):
        with pytest.raises(KeyError, match="of the user"):
            odeint_event(ball, np.array([H, V]), T0, event, G, method=method)


@pytest.mark.parametrize("method", ["adams", "dopri5", "rk4"])
def test_derivative_by_the_start_where_func_jumps_on_the_way(method):
    """The rate is 1 before t = 1 and 3 from then on: an event behind the jump comes a third as late as the start does."""
    options = {"jump_t": [1.0], **({"step_size": 0.05} if method == "rk4" else {})}

    def func(t, y, params):
        return anp.where(t < 1.0, 1.0, 3.0) * anp.ones_like(y)

    def time(t0, level, backwards):
        event = lambda t, y, params: y[0] - level
        return odeint_event(func, anp.ones(1), t0, event, method=method, options=options, reverse_time=backwards)[0]

    for t0, level, backwards, at, rate in ((0.0, 3.0, False, 4 / 3, 1 / 3), (2.0, -3.0, True, 0.0, 3.0)):
        assert time(t0, level, backwards) == pytest.approx(at, abs=1e-7)
        assert grad(time)(t0, level, backwards) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("method", ("adams", "dopri5", "radau"))
def test_event_may_write_into_the_state(method):
    """And does not move the solution of y'' = -y, which is at zero after a quarter."""

    def event(t, y, p):
        y -= 0.3
        return y[0] + 0.3

    quarter = lambda t, y, p: anp.array([y[1], -y[0]])
    t_event, y_event = odeint_event(quarter, [1.0, 0.0], 0.0, event, method=method, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose([t_event, *y_event], [np.pi / 2, 0.0, -1.0], atol=1e-6)

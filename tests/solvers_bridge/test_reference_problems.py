"""Every adaptive method on the classic test problems, against closed forms or published values.

Non-stiff: DETEST (Hull, Enright, Fellen and Sedgwick 1972) on [0, 20], the Brusselator and the Arenstorf orbit (Hairer,
Norsett and Wanner, Solving ODEs I). Stiff: Van der Pol, HIRES and Robertson from the Test Set for IVP Solvers.
Errors are counted in tolerances.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.special import ellipj

from solvers_bridge import odeint

TIMES = np.linspace(0.0, 20.0, 5)


class Problem(NamedTuple):
    """dy/dt = f(t, y, ()); exact(t) -> y; the error allowed, in hundreds of tolerances.

    hundreds > 1 is for problems that amplify: an error made early has grown by at least that factor at t = 20, which
    test_problems_allowed_more_do_amplify_errors checks.
    """

    f: Callable
    exact: Callable
    hundreds: float = 1


def linear(matrix, y0):
    return Problem(lambda t, y, _: matrix @ y, lambda t: expm(matrix * t) @ y0)


def orbit(t, y, _):
    r_cubed = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return np.array([y[2], y[3], -y[0] / r_cubed, -y[1] / r_cubed])


def kepler(eccentricity):
    """The two-body problem D1-D5, by Kepler's equation."""
    e, b = eccentricity, np.sqrt(1 - eccentricity**2)

    def exact(t):
        u = brentq(lambda u: u - e * np.sin(u) - t, t - 1, t + 1, xtol=1e-15)
        r = 1 - e * np.cos(u)
        return np.cos(u) - e, b * np.sin(u), -np.sin(u) / r, b * np.cos(u) / r

    return Problem(orbit, exact, hundreds=40)


def computed(f, y0, hundreds):
    """A problem without a closed form: DOP853, in SciPy's Python, at the least tolerance that it takes."""

    @cache
    def exact(t):
        if t == 0:
            return y0
        return solve_ivp(f, (0, t), y0, method="DOP853", rtol=2.3e-14, atol=1e-15, args=((),)).y[:, -1]

    return Problem(f, exact, hundreds)


def a5(t):
    """(t, y) is on the spiral r = 4 exp(pi/2 - theta)."""
    return [brentq(lambda y: np.hypot(t, y) - 4 * np.exp(np.pi / 2 - np.arctan2(y, t)), -t, 50, xtol=1e-15, rtol=1e-15)]


def b4(t, y, _):
    r = np.sqrt(y[0] ** 2 + y[1] ** 2)
    return np.array([-y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r])


def e1(t):
    """sqrt(2 / pi x) sin x, the Bessel function of order 1/2, and its derivative, at x = t + 1."""
    x = t + 1
    return np.sqrt(2 / (np.pi * x)) * np.array([np.sin(x), np.cos(x) - np.sin(x) / (2 * x)])


def e5(t):
    """The pursuit curve: dy/dt = sinh L with L = log(25 / (25 - t))."""
    log = np.log(25 / (25 - t))
    return (25 * log - t + t**2 / 50) / 2, np.sinh(log)


DECAY_CHAIN = -np.diag(np.append(np.ones(9), 0.0)) + np.eye(10, k=-1)
HEAT = -2 * np.eye(51) + np.eye(51, k=-1) + np.eye(51, k=1)

NON_STIFF = {
    "A1 exponential": Problem(lambda t, y, _: -y, lambda t: [np.exp(-t)]),
    "A2 Riccati": Problem(lambda t, y, _: -(y**3) / 2, lambda t: [(1 + t) ** -0.5]),
    "A3 oscillating": Problem(lambda t, y, _: y * np.cos(t), lambda t: [np.exp(np.sin(t))]),
    "A4 logistic": Problem(lambda t, y, _: y / 4 * (1 - y / 20), lambda t: [20 / (1 + 19 * np.exp(-t / 4))]),
    "A5 spiral": Problem(lambda t, y, _: (y - t) / (y + t), a5),
    "B1 Lotka-Volterra": computed(lambda t, y, _: np.array([2 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]]), [1.0, 3.0], 5),
    "B2 reaction": linear(np.array([[-1.0, 1, 0], [1, -2, 1], [0, 1, -1]]), [2.0, 0, 1]),
    "B4 torus": Problem(b4, lambda t: [(2 + np.cos(t)) * np.cos(t), (2 + np.cos(t)) * np.sin(t), np.sin(t)], hundreds=20),
    "B5 rigid body": Problem(
        lambda t, y, _: np.array([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]), lambda t: ellipj(t, 0.51)[:3], hundreds=5
    ),
    "C1 decay chain": linear(DECAY_CHAIN, np.eye(10)[0]),
    "C4 heat": linear(HEAT, np.eye(51)[0]),
    "D1 orbit": kepler(0.1),
    "D2 orbit": kepler(0.3),
    "D3 orbit": kepler(0.5),
    "D4 orbit": kepler(0.7),
    "D5 orbit": kepler(0.9),
    "E1 Bessel": Problem(lambda t, y, _: np.array([y[1], -y[1] / (t + 1) - (1 - 0.25 / (t + 1) ** 2) * y[0]]), e1),
    "E2 Van der Pol": computed(lambda t, y, _: np.array([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), [2.0, 0.0], 1),
    "E3 Duffing": computed(lambda t, y, _: np.array([y[1], y[0] ** 3 / 6 - y[0] + 2 * np.sin(2.78535 * t)]), [0.0, 0.0], 5),
    "E4 falling body": Problem(
        lambda t, y, _: np.array([y[1], 0.032 - 0.4 * y[1] ** 2]),
        lambda t: [30 + 2.5 * np.log(np.cosh(np.sqrt(0.0128) * t)), np.sqrt(0.08) * np.tanh(np.sqrt(0.0128) * t)],
    ),
    "E5 pursuit": Problem(lambda t, y, _: np.array([y[1], np.sqrt(1 + y[1] ** 2) / (25 - t)]), e5),
    "Brusselator": computed(
        lambda t, y, _: np.array([1 + y[0] ** 2 * y[1] - 4 * y[0], 3 * y[0] - y[0] ** 2 * y[1]]), [1.5, 3.0], 3
    ),
}
METHODS = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau")


def exact_states(problem):
    return np.array([problem.exact(t) for t in TIMES])


def tolerances(method):
    """1e-3 to 1e-12; a step of Radau, in Python, costs a hundred times one of the others."""
    return (1e-3, 1e-5, 1e-7) if method == "radau" else (1e-3, 1e-6, 1e-9, 1e-12)


def allowed(problem, method, tol):
    """In tolerances. BDF stays at order 5: each factor 100 of tolerance doubles its steps, whose errors add up.

    That makes it 3 to 10 times worse than the others from 1e-8 down.
    """
    return 100 * problem.hundreds * (10 if method == "bdf" and tol < 3e-8 else 4 if method == "bdf" else 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NON_STIFF)
def test_error_within_a_hundred_tolerances(name, method):
    """The largest error at any output, relative to the largest entry of the solution (at least 1)."""
    problem = NON_STIFF[name]
    want = exact_states(problem)
    scale = max(1.0, np.abs(want).max())
    for tol in tolerances(method):
        got = odeint(problem.f, want[0], TIMES, method=method, rtol=tol, atol=tol)
        assert np.abs(got - want).max() / scale < allowed(problem, method, tol) * tol, tol


@pytest.mark.parametrize("name", [name for name, problem in NON_STIFF.items() if problem.hundreds > 1])
def test_problems_allowed_more_do_amplify_errors(name):
    problem, h = NON_STIFF[name], 1e-6
    y0 = exact_states(problem)[0]
    times = np.linspace(0.0, 20.0, 100)
    base, *moved = [
        odeint(problem.f, y, times, method="dop853", rtol=1e-10, atol=1e-10) for y in (y0, *(y0 + h * np.eye(len(y0))))
    ]
    assert np.abs(np.array(moved) - base).sum(axis=0).max() > problem.hundreds * h


def three_bodies(t, y, _):
    """The Arenstorf orbit's right-hand side, mu = 0.012277471 (Hairer, Norsett and Wanner, eq. II.0.1)."""
    mu = 0.012277471
    d1 = ((y[0] + mu) ** 2 + y[1] ** 2) ** 1.5
    d2 = ((y[0] - 1 + mu) ** 2 + y[1] ** 2) ** 1.5
    return np.array(
        [
            y[2],
            y[3],
            y[0] + 2 * y[3] - (1 - mu) * (y[0] + mu) / d1 - mu * (y[0] - 1 + mu) / d2,
            y[1] - 2 * y[2] - (1 - mu) * y[1] / d1 - mu * y[1] / d2,
        ]
    )


@pytest.mark.parametrize("method, worst", [("adams", 1e-3), ("lsoda", 1e-3), ("dopri5", 1e-3), ("dop853", 1e-3), ("bdf", 1e-2)])
def test_arenstorf_orbit_closes(method, worst):
    """A period brings the positions back. The orbit passes the moon three times: a perturbation grows about 1e7-fold."""
    y0 = np.array([0.994, 0.0, 0.0, -2.00158510637908252240537862224])
    period = 17.0652165601579625588917206249
    end = odeint(three_bodies, y0, [0.0, period], method=method, rtol=1e-12, atol=1e-12)[-1]
    np.testing.assert_allclose(end[:2], y0[:2], rtol=0, atol=worst)


def van_der_pol(t, y, _):
    return anp.array([y[1], 1000 * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(t, y, _):
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return anp.array([back - slow, slow - back - fast, fast])


def hires(t, y, _):
    w = 280 * y[5] * y[7]
    return anp.array(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -w + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            w - 1.81 * y[6],
            -w + 1.81 * y[6],
        ]
    )


class Stiff(NamedTuple):
    """The published state at the end; atol as a multiple of rtol, near the scale of the least component."""

    f: Callable
    y0: list
    end: float
    published: list
    atol: object


STIFF = {
    "Van der Pol": Stiff(van_der_pol, [2.0, 0.0], 2000.0, [1.706167732170483, -0.8928097010247975e-3], 1e-3),
    "HIRES": Stiff(
        hires,
        [1.0, 0, 0, 0, 0, 0, 0, 0.0057],
        321.8122,
        [
            0.7371312573325668e-3,
            0.1442485726316185e-3,
            0.5888729740967575e-4,
            0.1175651343283149e-2,
            0.2386356198831331e-2,
            0.6238968252742796e-2,
            0.2849998395185769e-2,
            0.2850001604814231e-2,
        ],
        1e-4,
    ),
    # LSODE's own example; digits by Radau at 1e-12.
    "Robertson 40": Stiff(robertson, [1.0, 0, 0], 40.0, [0.715827068719404, 9.18553476455851e-6, 0.28416374574583264], 1e-6),
    "Robertson 1e11": Stiff(
        robertson, [1.0, 0, 0], 1e11, [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050], 1e-14
    ),
}


@pytest.mark.parametrize("rtol", [1e-4, 1e-6])
@pytest.mark.parametrize(
    "method, jacobian",
    [
        # Without one, VODE has functional iteration, which is not for stiff problems; the other two, finite differences.
        ("bdf", "finite_difference"),
        ("bdf", "autodiff"),
        ("lsoda", None),
        ("lsoda", "autodiff"),
        ("radau", None),
        ("radau", "autodiff"),
    ],
)
@pytest.mark.parametrize("name", STIFF)
def test_stiff_problems_reach_the_published_values(name, method, jacobian, rtol):
    """Relative errors of every component within a hundred tolerances."""
    problem = STIFF[name]
    end = odeint(
        problem.f,
        problem.y0,
        [0.0, problem.end],
        method=method,
        rtol=rtol,
        atol=problem.atol * rtol,
        options={"jacobian": jacobian},
    )[-1]
    np.testing.assert_allclose(end, problem.published, rtol=100 * rtol)


def test_robertson_over_ten_decades_keeps_its_mass():
    """lsoda at 0.4, 4, ..., 4e10: three species that sum to one, the slow one decreasing all the way."""
    times = np.append(0.0, 0.4 * 10.0 ** np.arange(12))
    states = odeint(robertson, [1.0, 0, 0], times, method="lsoda", rtol=1e-6, atol=1e-20)
    np.testing.assert_allclose(states.sum(axis=1), 1.0, rtol=1e-9)
    assert (np.diff(states[:, 0]) < 0).all() and (states >= 0).all()
    np.testing.assert_allclose(states[3], STIFF["Robertson 40"].published, rtol=1e-4)

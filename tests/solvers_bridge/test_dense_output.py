"""record_solves(steps=True).states and record_solves(dense=True).dense_output: the state at, and between, the steps."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from scipy.integrate import solve_ivp

from solvers_bridge import odeint, record_solves
from tests.helpers import ADAPTIVE, FIXED

METHODS = ADAPTIVE + FIXED
every_method = pytest.mark.parametrize("method", METHODS)
SPANS = ([0.0, 3.0, 10.0], [10.0, 0.0])


def driven(t, y, _):
    return anp.array([y[1], -y[0] + 0.1 * anp.sin(3 * t)])


def exact(span):
    solution = solve_ivp(
        driven, (span[0], span[-1]), [1.0, 0.0], method="DOP853", rtol=1e-12, atol=1e-12, dense_output=True, args=(0,)
    )
    return solution.sol


def options(method):
    return {"step_size": 0.02} if method in FIXED else {}


def recorded(method, span, tol=1e-7):
    with record_solves(steps=True, dense=True) as solves:
        states = odeint(driven, [1.0, 0.0], span, method=method, rtol=tol, atol=tol, options=options(method))
    [solve] = solves
    return solve, states


@every_method
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_between_steps_as_good_as_at_them(method, span):
    """At most ten tolerances worse, all over the span; the same at the steps; the outputs are on it."""
    solve, states = recorded(method, span)
    want = exact(span)
    at_steps = max(np.abs(z - want(t)).max() for t, z in zip(solve.t, solve.states))
    between = max(np.abs(solve.dense_output(t) - want(t)).max() for t in np.linspace(0.0, 10.0, 499))
    assert between < 1.001 * at_steps + 10 * 1e-7
    assert max(np.abs(z - solve.dense_output(t)).max() for t, z in zip(solve.t, solve.states)) < 1e-13
    ends = [solve.dense_output(t) for t in span]
    # SciPy's Radau gives inner outputs by a cubic, and its interpolant is of higher order here.
    np.testing.assert_allclose(ends, states, rtol=0, atol=1e-12 if method != "radau" else 1e-7)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_it_converges_with_the_tolerance(method):
    span = SPANS[0]

    def error(tol):
        solve, _ = recorded(method, span, tol)
        return max(np.abs(solve.dense_output(t) - exact_solution(t)).max() for t in np.linspace(0.0, 10.0, 97))

    exact_solution = exact(span)
    assert error(1e-9) < 1e-2 * error(1e-5) and error(1e-9) < 1e-6


@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize("tol", [1e-5, 1e-7, 1e-9])
def test_radau_is_as_good_between_steps_as_at_them(tol, span):
    """To a few times, where SciPy's cubic is 20 to 160 times worse (at 1e-5 to 1e-9)."""
    solve, _ = recorded("radau", span, tol)
    want = exact(span)
    at_steps = max(np.abs(z - want(t)).max() for t, z in zip(solve.t, solve.states))
    assert max(np.abs(solve.dense_output(t) - want(t)).max() for t in np.linspace(0.0, 10.0, 999)) < 5 * at_steps


@every_method
def test_asking_changes_no_step(method):
    """Nor the states; dop853 and fixed grids evaluate func more often for it."""

    def run(**kinds):
        with record_solves(**kinds) as solves:
            states = odeint(driven, [1.0, 0.0], SPANS[0], method=method, options=options(method))
        return states, solves[0].steps, solves[0].nfe

    (plain, steps, nfe), (dense, dense_steps, dense_nfe) = run(), run(steps=True, dense=True)
    np.testing.assert_array_equal(plain, dense)
    assert steps == dense_steps
    assert dense_nfe == nfe if method not in ("dop853", *FIXED) else dense_nfe > nfe


@every_method
def test_states_at_the_steps(method):
    solve, states = recorded(method, SPANS[0])
    assert len(solve.states) == len(solve.t) == len(solve.step_sizes) == solve.steps
    assert len({id(z) for z in solve.states}) == solve.steps and np.shape(solve.states) == (solve.steps, 2)
    if method in ("dopri5", "dop853", *FIXED):
        np.testing.assert_array_equal(solve.states[-1], states[-1])
    with record_solves() as solves:
        odeint(driven, [1.0, 0.0], SPANS[0], method=method, options=options(method))
    assert solves[0].states is solves[0].dense_output is None


def test_of_reverse_solves():
    """[z, a, a_theta, a_t] between the steps of the reverse solve; [a, a_theta, a_t] where z(t) is known."""

    def loss(rate, **adjoint_options):
        return odeint(lambda t, y, rate: -rate * y, [1.0], [0.0, 1.0], rate, adjoint_options=adjoint_options)[-1, 0]

    with record_solves(dense=True) as solves:
        grad(loss)(0.5)
        grad(loss)(0.5, reconstruction="interpolate")
    # z = exp(-t/2), a = exp(-(1 - t)/2)
    half = solves[1].dense_output(0.5)
    np.testing.assert_allclose(half[:2], np.exp([-0.25, -0.25]), rtol=1e-6)
    np.testing.assert_allclose(solves[3].dense_output(0.5), half[1:], rtol=1e-6)


@pytest.mark.parametrize("method", FIXED)
def test_of_a_fixed_grid_that_is_differentiated_step_by_step(method):
    """Steps, states and what is between them are those of the same grid with any other gradient."""

    def solve(adjoint_method):
        def loss(t):
            means = {"method": method, "options": {"step_size": 0.2}, "adjoint_method": adjoint_method}
            return anp.sum(odeint(driven, [1.0, 0.0], t, **means))

        with record_solves(steps=True, dense=True) as solves:
            grad(loss)(np.array([1.0, 0.5, 0.0]))
        return solves[0]

    plain, traced = solve(None), solve("discrete")
    assert (traced.nfe, traced.steps, traced.orders) == (plain.nfe, plain.steps, plain.orders)
    for name in ("t", "step_sizes", "states"):
        np.testing.assert_allclose(getattr(traced, name), getattr(plain, name), rtol=1e-14)
    for t in (1.0, 0.77, 0.5, 0.01):
        np.testing.assert_allclose(traced.dense_output(t), plain.dense_output(t), rtol=1e-13)


def test_a_closed_interpolant_tells_what_it_is():
    with record_solves(dense=True) as solves:
        odeint(driven, [1.0, 0.0], [2.0, 2.0])
    assert not solves


@pytest.mark.parametrize("method", ["lsoda", "dop853", "radau"])
def test_with_jumps_each_piece_has_its_own(method):
    with record_solves(dense=True) as solves:
        odeint(lambda t, y, _: np.ones(1) * (1.0 if t < 1 else -1.0), [0.0], [0.0, 2.0], method=method, options={"jump_t": [1.0]})
    first, second = (solve.dense_output for solve in solves)
    np.testing.assert_allclose([first(0.5)[0], first(1.0)[0], second(1.0)[0], second(1.5)[0]], [0.5, 1.0, 1.0, 0.5], atol=1e-6)


def test_a_first_step_of_radau_is_met_to_order_5():
    """Where there is no step before, the stages alone tell: halving the step divides the error between its ends by 2^5."""

    def error(h):
        with record_solves(dense=True) as solves:
            means = {"method": "radau", "rtol": 0.1, "atol": 0.1, "options": {"first_step": h}}
            odeint(lambda t, y, _: -anp.cos(t) * y, [1.0], [0.0, h], **means)
        assert solves[0].steps == 1
        times = np.linspace(0.0, h, 9)
        return max(abs(solves[0].dense_output(t)[0] - np.exp(-np.sin(t))) for t in times)

    assert error(0.2) > 25 * error(0.1)


@pytest.mark.parametrize("ulps", [1, 3, 20])
def test_a_last_step_of_radau_that_is_the_remainder(ulps):
    """It has no times in between."""
    span = 1500.0 - ulps * np.spacing(1500.0)
    means = {"method": "radau", "options": {"first_step": span, "max_step": span}}

    def end(rate):
        return odeint(
            lambda t, y, k: -k * y, 1.0, [0.0, 1500.0], rate, adjoint_options={"reconstruction": "interpolate"}, **means
        )[-1]

    with record_solves(steps=True) as solves:
        assert grad(end)(1e-9) == pytest.approx(-1500.0, rel=1e-5)
    assert solves[0].steps == 2

"""Solves inside func, ours and SciPy's: an error where COMMON blocks would be overwritten, right otherwise."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import isbox

from solvers_bridge import SolverError, record_solves
from tests.helpers import Y0, refused, run_script, solve, some_fast

FORTRAN_NOT_REENTRANT = ("adams", "lsoda")


def with_inner(method):
    """dy/dt = -y, by way of a solve inside."""

    def func(t, y, params):
        inner = solve(y0=1.0, t=[0.0, 1.0], method=method)[-1]
        return -y * inner * np.exp(1.0)

    return func


@pytest.mark.parametrize("outer", FORTRAN_NOT_REENTRANT)
@pytest.mark.parametrize("inner", FORTRAN_NOT_REENTRANT)
@pytest.mark.parametrize("steps", (False, True))
def test_nesting_vode_and_lsoda_is_an_error(outer, inner, steps):
    with refused(SolverError, "inside the right-hand side.*dopri5", outer), record_solves(steps=steps):
        solve(with_inner(inner), method=outer)
    with refused(SolverError, "inside the right-hand side.*dopri5", inner), record_solves(steps=steps):
        solve(with_inner(inner), method=outer)


@pytest.mark.parametrize("outer", FORTRAN_NOT_REENTRANT)
def test_nesting_in_the_reverse_sweep_is_an_error(outer):
    def func(t, y, params):
        return with_inner("adams")(t, y, params) if isbox(y) else -y

    with refused(SolverError, "inside the right-hand side", outer):
        grad(lambda y0: anp.sum(solve(func, y0, method=outer)))(Y0)


REENTRANT = ("dopri5", "radau", "rk4")


NESTED = [
    *((outer, inner, False) for outer in REENTRANT + FORTRAN_NOT_REENTRANT for inner in REENTRANT),
    *((outer, inner, steps) for outer in REENTRANT for inner in FORTRAN_NOT_REENTRANT for steps in (False, True)),
    *((outer, "dopri5", True) for outer in FORTRAN_NOT_REENTRANT),
]
# A hundred solves of Radau's, which is Python, inside one of its own and one of VODE's.
RADAU_INSIDE = ("radau", "adams")


@pytest.mark.parametrize(
    "outer, inner, steps", some_fast(NESTED, *(case for case in NESTED if case[1] != "radau" or case[0] in RADAU_INSIDE))
)
def test_nesting_with_a_reentrant_method_is_right(outer, inner, steps):
    step = {"step_size": 0.05} if outer == "rk4" else {}
    if inner == "rk4":

        def func(t, y, params):
            return -y * solve(y0=1.0, t=[0.0, 1.0], method="rk4", options={"step_size": 0.02})[-1] * np.exp(1.0)
    else:
        func = with_inner(inner)
    with record_solves(steps=steps) as solves:
        ys = solve(func, t=[0.0, 1.0], method=outer, rtol=1e-5, atol=1e-5, options=step)
    np.testing.assert_allclose(ys[-1], np.exp(-1) * Y0, rtol=1e-4)
    assert solves[-1].method == outer and len(solves) == solves[-1].nfe + 1


@pytest.mark.parametrize("outer, inner", [("adams", "dopri5"), ("lsoda", "rk4"), ("dopri5", "adams"), ("rk4", "dop853")])
def test_gradient_of_nested_solves(outer, inner):
    def func(t, y, params):
        # The inner solve from 0 to 1 is y exp(-rate).
        return -solve(
            lambda t, x, rate: -rate * x,
            y,
            [0.0, 1.0],
            inner,
            params=params,
            options={"step_size": 0.05} if inner == "rk4" else {},
        )[-1]

    def loss(rate):
        return solve(
            func,
            t=[0.0, 1.0],
            method=outer,
            params=rate,
            rtol=1e-6,
            atol=1e-6,
            options={"step_size": 0.1} if outer == "rk4" else {},
        )[-1, 0]

    factor = np.exp(-0.5)
    np.testing.assert_allclose(grad(loss)(0.5), factor * np.exp(-factor), rtol=1e-4)


def test_scipy_inside_our_solves_is_an_error_or_right():
    run_script(
        """
        import itertools, sys
        import numpy as np, scipy.integrate
        from solvers_bridge import SolverError, odeint, record_solves
        f = lambda t, y: -y
        inner = {
            "vode": lambda: scipy.integrate.ode(f).set_integrator("vode", rtol=1e-8, atol=1e-8).set_initial_value([1.0]).integrate(1.0),
            "bdf": lambda: scipy.integrate.ode(f).set_integrator("vode", method="bdf", rtol=1e-8, atol=1e-8)
                .set_initial_value([1.0]).integrate(1.0),
            "lsoda": lambda: scipy.integrate.ode(f).set_integrator("lsoda", rtol=1e-8, atol=1e-8).set_initial_value([1.0]).integrate(1.0),
            "odeint": lambda: scipy.integrate.odeint(lambda y, t: -y, [1.0], [0.0, 1.0], rtol=1e-8, atol=1e-8)[-1],
            "ivp": lambda: scipy.integrate.solve_ivp(f, (0.0, 1.0), [1.0], method="LSODA", rtol=1e-8, atol=1e-8).y[:, -1],
        }
        def check(answer):
            np.testing.assert_allclose(answer, np.exp(-t)[:, None] * [1.0, 2.0], rtol=1e-5)
        t = np.linspace(0.0, 1.0, 5)
        for outer, steps, (name, solve) in itertools.product(sys.argv[1].split(","), (False, True), inner.items()):
            print(outer, steps, name, flush=True)
            def func(t, y, params):
                return -y * solve()[0] * np.exp(1.0)
            def forgiving(t, y, params):
                try:
                    return func(t, y, params)
                except SolverError:
                    return -y
            for rhs in (func, forgiving):
                with record_solves(steps=steps):
                    try:
                        check(odeint(rhs, [1.0, 2.0], t, method=outer, rtol=1e-7, atol=1e-7))
                    except Exception as error:
                        print("   ", type(error).__name__, error)
                        assert "inside the right-hand side" in str(error) or "only a single problem" in str(error)
                check(odeint(lambda t, y, params: -y, [1.0, 2.0], t, method=outer))
            np.testing.assert_allclose(solve(), np.exp(-1), rtol=1e-6)
        """,
        ",".join(FORTRAN_NOT_REENTRANT),
    )

"""Exceptions inside func, forwards, backwards and in a Jacobian: the very object arrives, and the next solve is right."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import isbox

from solvers_bridge import SolverError
from tests.helpers import IMPLICIT, Y0, Calls, error_of, every_family, raising, refused, solve


class Peculiar(Exception):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second


ERRORS = {
    "peculiar": lambda: Peculiar(1, 2),
    "value": lambda: ValueError("read-only in the user's own sense"),
    "warning": lambda: UserWarning("raised, not warned"),
    "runtime": lambda: RuntimeError("x"),
    "stop": lambda: StopIteration(3),
    "interrupt": KeyboardInterrupt,
    "exit": lambda: SystemExit(3),
    "solver": lambda: SolverError("the user's own"),
}


@every_family
@pytest.mark.parametrize(
    "name, at", [*((name, 9) for name in ERRORS), *((name, at) for name in ("peculiar", "interrupt") for at in (0, 1))]
)
def test_an_exception_in_func_is_the_very_object_that_arrives(method, name, at):
    error = ERRORS[name]()
    with refused(type(error), "", method) as info:
        solve(Calls(at, raising(error)), t=np.linspace(0, 1, 12), method=method)
    assert info.value is error


@every_family
@pytest.mark.parametrize("cause", (None, "from"))
def test_context_and_cause_of_an_exception_stay(method, cause):
    def func(t, y, params):
        try:
            raise KeyError("inner")
        except KeyError as inner:
            if cause:
                raise ValueError("outer") from inner
            raise ValueError("outer")

    with refused(ValueError, "outer", method) as info:
        solve(func, method=method)
    assert isinstance(info.value.__cause__ if cause else info.value.__context__, KeyError)
    assert "func" in [entry.name for entry in info.traceback]


@every_family
@pytest.mark.parametrize("at", (0, 5))
@pytest.mark.parametrize("name", ("peculiar", "interrupt"))
def test_an_exception_in_the_reverse_sweep(method, name, at):
    error, traced_calls = ERRORS[name](), 0

    def func(t, y, params):
        nonlocal traced_calls
        traced_calls += isbox(y)
        if traced_calls > at:
            raise error
        return -y

    def loss(y0):
        return anp.sum(solve(func, y0, t=np.linspace(0, 1, 8), method=method))

    with refused(type(error), "", method) as info:
        grad(loss)(Y0)
    assert info.value is error
    np.testing.assert_allclose(
        grad(lambda y0: solve(y0=y0, method=method)[-1, 0])(Y0), [np.exp(-1), 0], rtol=error_of(method), atol=1e-9
    )


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("at", (0, 1))
def test_an_exception_in_the_jacobian(method, at):
    error, jacobians = Peculiar(1, 2), 0

    def func(t, y, params):
        nonlocal jacobians
        jacobians += isbox(y)
        if jacobians > at:
            raise error
        return -1000.0 * (y - anp.cos(10 * t)) * (1 + y**2)

    with refused(Peculiar, "", method) as info:
        solve(func, method=method, t=[0.0, 5.0], options={"jacobian": "autodiff"})
    assert info.value is error

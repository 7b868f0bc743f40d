"""Bad input, failing functions, nested and simultaneous solves: an error at once that says what is wrong, or a right answer.

After each of them the next solve has to work: refused() checks it.
"""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import isbox

from solvers_bridge import SolverError, odeint, record_solves

ROOT = Path(__file__).resolve().parents[2]
FIXED = ("euler", "midpoint", "rk4")
FORTRAN_NOT_REENTRANT = ("adams", "bdf", "lsoda")
IMPLICIT = ("adams", "bdf", "lsoda", "radau")
ADAPTIVE = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau")
METHODS = ADAPTIVE + FIXED
Y0, T = np.array([1.0, 2.0]), np.array([0.0, 0.5, 1.0])
HANG = 100

every_method = pytest.mark.parametrize("method", METHODS)
every_adaptive = pytest.mark.parametrize("method", ADAPTIVE)


def decay(t, y, params):
    return -y


def small_steps(method):
    return {"step_size": {"euler": 1e-3, "midpoint": 1e-2, "rk4": 5e-2}[method]} if method in FIXED else {}


def error_of(method):
    """Of solving decay over [0, 1] with small_steps and a tolerance of 1e-8."""
    return {"euler": 2e-3, "midpoint": 1e-4}.get(method, 1e-6)


def solve(func=decay, y0=Y0, t=T, method="adams", **kwargs):
    kwargs = {"rtol": 1e-8, "atol": 1e-8, "options": small_steps(method), **kwargs}
    return odeint(func, y0, t, method=method, **kwargs)


def assert_decays(ys, y0=Y0, t=T, method="adams"):
    t, y0 = np.asarray(t), np.asarray(y0)
    expected = np.exp(-(t - t[0])).reshape(-1, *(1,) * y0.ndim) * y0
    np.testing.assert_allclose(ys, expected, rtol=error_of(method), atol=1e-12)


@contextmanager
def refused(kind, match, method="adams"):
    """The block raises kind with a message like match, and the next solve is right."""
    with pytest.raises(kind, match=match or None) as info:
        yield info
    assert_decays(solve(method=method), method=method)


class Calls:
    """A right-hand side that counts; on call number at (from 0) and later it does something else."""

    def __init__(self, at, then, before=decay):
        self.at, self.then, self.before, self.count = at, then, before, 0

    def __call__(self, t, y, params):
        self.count += 1
        return (self.then if self.count > self.at else self.before)(t, y, params)


def blow_up(t, y, params):
    """dy/dt = y^2: y0 = 1 has its pole at t = 1."""
    with np.errstate(all="ignore"):
        return y**2


def raising(error):
    def func(t, y, params):
        raise error

    return func


def run_script(body, *arguments, timeout=HANG, flags=(), **kwargs):
    """Run a Python script; it prints OK last if all went well. Returns the finished process."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(body), *map(str, arguments)],
        timeout=timeout,
        cwd=ROOT,
        capture_output=True,
        text=True,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# Arguments -----------------------------------------------------------------------------------------------------------------------

never = raising(AssertionError("func was called before the arguments were checked"))

BAD_TIMES = {
    "empty": ([], ValueError, "one-dimensional with at least one"),
    "scalar": (0.5, ValueError, "one-dimensional"),
    "two_dimensional": ([[0.0, 1.0]], ValueError, "one-dimensional"),
    "no_order": ([0.0, 1.0, 0.5], ValueError, "strictly increasing or strictly decreasing"),
    "repeated": ([0.0, 0.5, 0.5, 1.0], ValueError, "repeated"),
    "nan": ([0.0, np.nan, 1.0], ValueError, "finite"),
    "inf": ([0.0, np.inf], ValueError, "finite"),
    "complex": ([0.0, 1.0j], TypeError, "real"),
    "string": (["0", "1"], TypeError, "real"),
    "none": (None, TypeError, "real"),
    "ragged": ([[0.0], [1.0, 2.0]], (TypeError, ValueError), ""),
}


@every_method
@pytest.mark.parametrize("name", BAD_TIMES)
def test_bad_times(method, name):
    t, kind, match = BAD_TIMES[name]
    with refused(kind, rf"\bt must be.*{match}", method):
        solve(never, t=t, method=method)


@every_method
@pytest.mark.parametrize("t", ([0.3], np.array([7])))
def test_a_single_time_gives_y0(method, t):
    ys = solve(never, t=t, method=method)
    assert ys.shape == (1, 2) and ys.dtype == np.float64
    np.testing.assert_array_equal(ys[0], Y0)
    ys[0] = 5.0
    np.testing.assert_array_equal(Y0, [1.0, 2.0])


BAD_STATES = {
    "nan": ([1.0, np.nan], ValueError, "finite"),
    "inf": ([-np.inf, 1.0], ValueError, "finite"),
    "complex": ([1.0, 1.0j], TypeError, r"real.*\.real.*\.imag"),
    "object": (np.array([1.0, None]), TypeError, "real numbers"),
    "string": (["1", "2"], TypeError, "real numbers"),
    "none": (None, TypeError, "real numbers"),
    "empty": (np.zeros((2, 0)), ValueError, "at least one"),
    "ragged": ([[1.0], [1.0, 2.0]], (TypeError, ValueError), ""),
}


@every_method
@pytest.mark.parametrize("name", BAD_STATES)
def test_bad_initial_states(method, name):
    y0, kind, match = BAD_STATES[name]
    with refused(kind, f"y0 must be.*{match}|y0 must hold.*{match}", method):
        solve(never, y0=y0, method=method)


@every_method
@pytest.mark.parametrize(
    "y0",
    (np.array([[3, 1]]), [True, False], np.float32([1.5, 2.0]), 2, np.array(4.0)),
    ids=("integers", "booleans", "float32", "int", "0-d"),
)
def test_real_initial_states_of_any_kind_are_solved_in_float64(method, y0):
    ys = solve(y0=y0, method=method)
    assert ys.dtype == np.float64 and ys.shape == (3, *np.shape(y0))
    assert_decays(ys, np.asarray(y0, np.float64), method=method)


BAD_TOLERANCES = {
    "zero": 0,
    "negative": -1e-6,
    "nan": np.nan,
    "inf": np.inf,
    "vector_with_zero": [1e-6, 0.0],
    "vector_with_nan": [1e-6, np.nan],
    "wrong_shape": [1e-6] * 3,
    "too_many_dimensions": [[1e-6, 1e-6]],
    "complex": 1e-6j,
    "word": "tight",
    "none_inside": [1e-6, None],
}


@pytest.mark.parametrize("argument", ("rtol", "atol", "adjoint_rtol", "adjoint_atol"))
@pytest.mark.parametrize("name", BAD_TOLERANCES)
@pytest.mark.parametrize("method", ("adams", "lsoda", "dop853", "radau", "rk4"))
def test_bad_tolerances(method, argument, name):
    match = "shape" if name in ("wrong_shape", "too_many_dimensions") else "positive"
    with refused((ValueError, TypeError), rf"^{argument}.*{match}", method):
        solve(never, method=method, **{argument: BAD_TOLERANCES[name]})


@every_adaptive
def test_tolerances_that_broadcast(method):
    y0 = np.arange(1.0, 7.0).reshape(2, 3)
    assert_decays(solve(y0=y0, method=method, rtol=[1e-8, 1e-9, 1e-8], atol=[[1e-9], [1e-8]]), y0)


@pytest.mark.parametrize("method", ("vode", "ADAMS", "", None, 4, ["adams"], "discrete"))
def test_unknown_methods_list_the_known(method):
    with refused(ValueError, "method must be one of adams, bdf, lsoda.*rk4"):
        odeint(never, Y0, T, method=method)
    if method not in (None, "discrete"):
        with refused(ValueError, "adjoint_method must be one of adams"):
            odeint(never, Y0, T, adjoint_method=method)


@every_method
@pytest.mark.parametrize("argument", ("options", "adjoint_options"))
def test_unknown_options_list_the_known(method, argument):
    known = "step_size" if method in FIXED else "first_step.*max_step.*max_num_steps"
    with refused(ValueError, rf"{argument}.*'nsteps'.*{known}", method):
        solve(never, method=method, **{argument: {"nsteps": 5}})
    with refused(TypeError, f"{argument} must be a dict", method):
        solve(never, method=method, **{argument: [("first_step", 1.0)]})


BAD_OPTIONS = [
    *(
        (method, key, value)
        for method in ("adams", "lsoda", "dopri5", "radau")
        for key in ("first_step", "max_step")
        for value in (0, -0.1, np.nan, np.inf, "small", 1j, [0.1])
    ),
    *((method, "max_num_steps", value) for method in ADAPTIVE for value in (0, -3, 1.5, "5", True)),
    *(
        (method, "max_order", value)
        for method, value in (("adams", 13), ("bdf", 6), ("lsoda", 13), ("adams", 0), ("bdf", 2.0), ("lsoda", "5"))
    ),
    *((method, "jacobian", value) for method in IMPLICIT for value in ("foo", True, decay, ["diagonal"])),
    ("radau", "jacobian", "diagonal"),
    *((method, "jacobian", np.eye(2)) for method in IMPLICIT),
    *((method, "step_size", value) for method in FIXED for value in (0, -0.1, np.nan, "small")),
]


@pytest.mark.parametrize("method, key, value", BAD_OPTIONS, ids=lambda value: str(getattr(value, "__name__", value))[:12])
@pytest.mark.parametrize("argument", ("options", "adjoint_options"))
def test_bad_option_values(argument, method, key, value):
    with refused((ValueError, TypeError), rf"{argument}\['{key}'\] must be", method):
        solve(never, method=method, **{argument: {key: value}})


@pytest.mark.parametrize(
    "options, match",
    [
        ({"restart": "cold"}, "'restart'.*'fresh' or 'warm'"),
        ({"norm": "max"}, "'norm'.*'seminorm'"),
        ({"norm": 2}, "'norm'.*'seminorm'"),
        ({"checkpoint": -1}, "'checkpoint'.*0 or more"),
        ({"checkpoint": 1.5}, "'checkpoint'"),
        ({"checkpoint": True}, "'checkpoint'"),
        ({"checkpoint": None}, "'checkpoint'"),
        ({"restrat": "warm"}, "restart.*norm.*checkpoint"),
    ],
)
def test_bad_adjoint_options(options, match):
    with refused(ValueError, rf"adjoint_options.*{match}"):
        solve(never, adjoint_options=options)


@every_adaptive
def test_discrete_adjoint_of_an_adaptive_method(method):
    with refused(ValueError, f"adjoint_method.*euler, midpoint or rk4.*{method}", method):
        solve(never, method=method, adjoint_method="discrete")


@every_method
@pytest.mark.parametrize("func", (None, 3.0, "decay", Y0), ids=("none", "number", "name", "array"))
def test_func_that_is_no_function(method, func):
    with refused(TypeError, "func must be a function.*TensorFlowDynamics", method):
        solve(func, method=method)


@every_method
@pytest.mark.parametrize(
    "params, where",
    [
        ("weights", "params "),
        (None, "params "),
        (1j, "params "),
        ([np.ones(2), "w"], r"params\[1\]"),
        ({"a": {"b": None}}, r"params\['a'\]\['b'\]"),
        ((np.ones(2), [np.array([1j])]), r"params\[1\]\[0\]"),
        ({1.0}, "params "),
        ([[1.0], np.array([None])], r"params\[1\]"),
    ],
    ids=("string", "none", "complex", "string_inside", "none_inside", "complex_inside", "set", "object_array"),
)
def test_bad_params(method, params, where):
    with refused(TypeError, f"{where}.*must be real numbers", method):
        solve(never, params=params, method=method)


# Exceptions inside func ----------------------------------------------------------------------------------------------------------


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


@every_method
@pytest.mark.parametrize("at", (0, 1, 9))
@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_in_func_is_the_very_object_that_arrives(method, name, at):
    error = ERRORS[name]()
    with refused(type(error), "", method) as info:
        solve(Calls(at, raising(error)), t=np.linspace(0, 1, 12), method=method)
    assert info.value is error


@every_method
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


@every_method
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


def assert_only_f2py(stderr):
    """An interrupt that strikes before the first line of a callback is Python's to raise: f2py's own two lines get out."""
    assert all(line.startswith(("capi_return is NULL", "Call-back cb_")) for line in stderr.splitlines()), stderr


def test_interrupt_by_signal():
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
        import signal, sys, numpy as np
        from solvers_bridge import odeint
        # Shells let what they run in the background ignore it, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for method in ("adams", "lsoda", "dopri5", "radau", "rk4"):
            ready = False
            def endless(t, y, params):
                global ready
                if not ready:
                    ready = True
                    print("ready", flush=True)
                return np.cos(1e3 * t) * y
            try:
                odeint(endless, [1.0], [0.0, 1e5], method=method,
                       options={"step_size": 1e-3} if method == "rk4" else {"max_num_steps": 10**9})
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            assert abs(odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0])[1] - np.exp(-1)) < 1e-6
        print("OK", flush=True)
        """),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(HANG, child.kill)
    guard.start()
    lines = []
    for line in child.stdout:
        lines.append(line.strip())
        if lines[-1] == "ready":
            child.send_signal(signal.SIGINT)
    guard.cancel()
    assert_only_f2py(child.stderr.read())
    assert child.wait() == 0 and lines == ["ready", "interrupted"] * 5 + ["OK"]


# What func returns ---------------------------------------------------------------------------------------------------------------

BAD_RETURNS = {
    "shorter": (lambda t, y, p: -y[:1], ValueError, r"shape.*\(2,\).*\(1,\)"),
    "longer": (lambda t, y, p: anp.concatenate([y, y]), ValueError, r"shape.*\(2,\).*\(4,\)"),
    "scalar": (lambda t, y, p: -y[0], ValueError, r"shape.*\(2,\).*\(\)"),
    "column": (lambda t, y, p: -anp.reshape(y, (2, 1)), ValueError, r"shape.*\(2,\).*\(2, 1\)"),
    "complex": (lambda t, y, p: y + 1j, TypeError, "real.*complex"),
    "none": (lambda t, y, p: None, TypeError, r"None.*\(2,\)"),
    "string": (lambda t, y, p: "dy", TypeError, "real"),
    "strings": (lambda t, y, p: ["1", "2"], TypeError, "real"),
    "ragged": (lambda t, y, p: [[1.0], [1.0, 2.0]], ValueError, r"shape \(2,\)"),
    "objects": (lambda t, y, p: np.array([1.0, None]), TypeError, "real"),
    "dict": (lambda t, y, p: {"dy": y}, TypeError, "real"),
    "function": (lambda t, y, p: decay, TypeError, "real"),
}


@every_method
@pytest.mark.parametrize("at", (0, 7))
@pytest.mark.parametrize("name", BAD_RETURNS)
def test_func_returns_something_else(method, name, at):
    then, kind, match = BAD_RETURNS[name]
    with refused(kind, f"func.*{match}", method):
        solve(Calls(at, then), t=np.linspace(0, 1, 9), method=method)


@every_method
@pytest.mark.parametrize("name", ("shorter", "complex", "none", "ragged"))
def test_func_returns_something_else_in_the_reverse_sweep(method, name):
    then, kind, match = BAD_RETURNS[name]
    with refused(kind, f"func.*{match}", method):
        grad(lambda y0: anp.sum(solve(lambda t, y, p: (then if isbox(y) else decay)(t, y, p), y0, method=method)))(Y0)


@every_method
@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("at", (0, 1, 8))
def test_func_returns_what_is_not_finite(method, value, at):
    func = Calls(at, lambda t, y, params: np.array([0.0, value]))
    with refused(SolverError, rf"func returned {value} in 1 of 2 components.*index 1.*t = ", method) as info:
        solve(func, t=np.linspace(0, 1, 12), method=method)
    error = info.value
    assert error.statistics.nfe == func.count >= at + 1 and error.statistics.method == method
    assert 0 <= error.t_reached <= 1


@every_method
@pytest.mark.parametrize("backwards", (False, True))
def test_nan_from_a_certain_time_on(method, backwards):
    def func(t, y, params):
        return -y if abs(t) < 0.6 else y * np.nan

    with refused(SolverError, "func returned nan", method) as info:
        solve(func, t=np.linspace(0, -1 if backwards else 1, 11), method=method)
    assert 0.3 < abs(info.value.t_reached) <= 0.6 and info.value.statistics.nfe > 1
    assert np.sign(info.value.t_reached) == (-1 if backwards else 1)


@every_method
def test_nan_in_the_reverse_sweep(method):
    with refused(SolverError, "nan", method) as info:
        grad(lambda y0: anp.sum(solve(lambda t, y, p: y * np.nan if isbox(y) else -y, y0, method=method)))(Y0)
    assert info.value.statistics.direction == "backward"


@every_method
def test_a_traced_value_by_closure_is_an_error_or_right(method):
    def loss(rate):
        return solve(lambda t, y, params: -rate * y, y0=rate * Y0, method=method)[-1, 0]

    with refused(TypeError, "func used a value that is being differentiated.*params", method):
        grad(loss)(1.0)


@pytest.mark.parametrize("method", FIXED)
def test_a_traced_value_by_closure_with_the_discrete_adjoint_is_an_error_or_right(method):
    def loss(rate):
        return solve(lambda t, y, params: -rate * y, method=method, options={"step_size": 0.01}, adjoint_method="discrete")[-1, 0]

    try:
        rate_bar = grad(loss)(1.0)
    except TypeError as error:
        assert "params" in str(error)
    else:
        np.testing.assert_allclose(rate_bar, -np.exp(-1), rtol=1e-2)


buffer = np.empty(2)


def writes_item(t, y, params):
    y[0], y[1] = -y[0], -y[1]
    return y


def writes_in_place(t, y, params):
    np.negative(y, out=y)
    return y.copy()


def writes_after_use(t, y, params):
    dy = -y
    y[:] = np.nan
    return dy


def same_buffer(t, y, params):
    np.negative(y, out=buffer)
    return buffer


USUAL = (
    writes_item,
    writes_in_place,
    writes_after_use,
    same_buffer,
    lambda t, y, params: [-y[0], -y[1]],
    lambda t, y, params: (-y).tolist(),
    lambda t, y, params: np.stack([-y, -y])[::-1][0],
    lambda t, y, params: np.ma.masked_array(-y),
)


@every_method
@pytest.mark.parametrize("func", USUAL, ids=("item", "in_place", "after_use", "buffer", "list", "floats", "strided", "masked"))
@pytest.mark.parametrize("steps", (False, True))
def test_func_may_reuse_memory_and_return_sequences(method, func, steps):
    with record_solves(steps=steps):
        assert_decays(solve(func, method=method), method=method)
    np.testing.assert_array_equal(Y0, [1.0, 2.0])


@pytest.mark.parametrize(
    "method, jacobian",
    [
        (method, jacobian)
        for method in IMPLICIT
        for jacobian in ("diagonal", "finite_difference")
        if (method, jacobian) != ("radau", "diagonal")
    ],
)
@pytest.mark.parametrize("func", (writes_item, writes_after_use, same_buffer))
def test_func_may_reuse_memory_under_finite_differences(method, func, jacobian):
    assert_decays(solve(func, method=method, options={"jacobian": jacobian}))


@every_method
def test_func_returns_its_input(method):
    assert_decays(solve(lambda t, y, params: y, t=-T, method=method), t=T, method=method)
    assert_decays(solve(lambda t, y, params: y, y0=Y0[:, None], t=-T, method=method), Y0[:, None], T, method)


@every_method
def test_func_returns_single_precision_or_integers(method):
    single = solve(lambda t, y, params: np.float32(-y), method=method, rtol=1e-4, atol=1e-4)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, np.exp(-T)[:, None] * Y0, rtol=3e-3)
    np.testing.assert_allclose(
        solve(lambda t, y, params: np.array([1, -2]), method=method), Y0 + T[:, None] * [1, -2], rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(solve(lambda t, y, params: 3, y0=1.0, method=method), 1 + 3 * T, rtol=1e-7)


@every_method
def test_gradient_of_func_that_returns_a_list(method):
    def loss(y0):
        return solve(lambda t, y, params: [-y[0], -y[1]], y0, method=method)[-1, 1]

    np.testing.assert_allclose(grad(loss)(Y0), [0, np.exp(-1)], rtol=error_of(method), atol=1e-9)


# Nested solves -------------------------------------------------------------------------------------------------------------------


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


REENTRANT = ("dopri5", "dop853", "radau", "rk4")


@pytest.mark.parametrize(
    "outer, inner",
    [
        *((outer, inner) for outer in REENTRANT + FORTRAN_NOT_REENTRANT for inner in REENTRANT),
        *((outer, inner) for outer in REENTRANT for inner in FORTRAN_NOT_REENTRANT),
    ],
)
@pytest.mark.parametrize("steps", (False, True))
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


@pytest.mark.parametrize("outer", FORTRAN_NOT_REENTRANT)
@pytest.mark.parametrize("steps", (False, True))
def test_scipy_inside_our_solves_is_an_error_or_right(outer, steps):
    run_script(
        """
        import sys, warnings
        import numpy as np, scipy.integrate
        from solvers_bridge import SolverError, odeint, record_solves
        outer, steps = sys.argv[1], sys.argv[2] == "True"
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
        for name, solve in inner.items():
            print(outer, name, flush=True)
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
        outer,
        steps,
    )


def test_threads_of_mixed_methods_and_gradients():
    def work(k, method, failures):
        try:
            rate, t = 0.5 + k / 10, np.linspace(0.0, 1.0, 6)

            def final(rate, y0):
                return solve(
                    lambda t, y, rate: -rate * y,
                    y0,
                    t,
                    method,
                    params=rate,
                    options={"step_size": 0.01} if method in FIXED else {},
                )[-1, 0]

            for _ in range(4):
                np.testing.assert_allclose(final(rate, Y0), np.exp(-rate), rtol=1e-6)
                np.testing.assert_allclose(grad(final)(rate, Y0), -np.exp(-rate), rtol=1e-6)
                np.testing.assert_allclose(grad(final, 1)(rate, Y0), [np.exp(-rate), 0], rtol=1e-6, atol=1e-9)
        except BaseException as error:
            failures.append((method, repr(error)))

    failures, interval = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for round_ in (
            ("adams", "adams", "lsoda", "dopri5"),
            ("bdf", "lsoda", "radau", "rk4"),
            ("dop853", "dopri5", "adams", "lsoda"),
        ):
            threads = [threading.Thread(target=work, args=(k, method, failures), daemon=True) for k, method in enumerate(round_)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(HANG)
                assert not thread.is_alive(), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    assert not failures, failures
    assert_decays(solve())


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda"))
@pytest.mark.parametrize("steps", (False, True))
def test_a_thread_with_scipys_own_integrators_beside_ours(method, steps):
    done = run_script(
        """
        import sys, threading
        import numpy as np, scipy.integrate
        from solvers_bridge import odeint, record_solves
        sys.setswitchinterval(1e-5)
        stop, theirs = threading.Event(), []
        f = lambda t, y: -y
        def scipy_alone():
            while not stop.is_set():
                theirs.append(scipy.integrate.odeint(lambda y, t: -y, [1.0], [0.0, 1.0], rtol=1e-8, atol=1e-8)[-1, 0])
                for name in ("vode", "lsoda"):
                    solver = scipy.integrate.ode(f).set_integrator(name, rtol=1e-8, atol=1e-8)
                    theirs.append(solver.set_initial_value([1.0]).integrate(1.0)[0])
        thread = threading.Thread(target=scipy_alone, daemon=True)
        thread.start()
        t = np.linspace(0.0, 1.0, 40)
        for _ in range(30):
            with record_solves(steps=sys.argv[2] == "True"):
                ys = odeint(lambda t, y, params: -y, [1.0, 2.0], t, method=sys.argv[1])
            np.testing.assert_allclose(ys, np.exp(-t)[:, None] * [1.0, 2.0], rtol=1e-5)
        stop.set()
        thread.join(60)
        assert theirs
        np.testing.assert_allclose(theirs, np.exp(-1), rtol=1e-6)
        """,
        method,
        steps,
    )
    assert done.stderr == ""


# Solves that do not reach their end ----------------------------------------------------------------------------------------------


def oscillator(t, y, params):
    return 30.0 * np.array([y[1], -y[0]])


@every_adaptive
@pytest.mark.parametrize("steps", (False, True))
@pytest.mark.parametrize("t", ([0.0, 10.0], [0.0, -10.0], [0.0, 0.001, 10.0]), ids=("forwards", "backwards", "two"))
def test_step_limit(method, steps, t):
    with refused(SolverError, "", method) as info, record_solves(steps=steps):
        solve(oscillator, t=t, method=method, options={"max_num_steps": 20})
    error = info.value
    assert 0 < abs(error.t_reached) < 10 and np.sign(error.t_reached) == np.sign(t[-1])
    assert error.statistics.nfe >= 20 and error.statistics.method == method and error.statistics.direction == "forward"
    assert 0 < error.statistics.steps <= 21 * (len(t) - 1)
    assert str(error.t_reached) in str(error) and method in str(error)


@every_adaptive
@pytest.mark.parametrize("steps", (False, True))
def test_the_step_limit_is_named_in_the_message(method, steps):
    with refused(SolverError, "max_num_steps", method), record_solves(steps=steps):
        solve(oscillator, t=[0.0, 10.0], method=method, options={"max_num_steps": 20})


@every_adaptive
def test_a_limit_that_suffices(method):
    assert_decays(solve(method=method, options={"max_num_steps": 300}), method=method)


@every_adaptive
@pytest.mark.parametrize("steps", (False, True))
def test_blow_up(method, steps):
    with refused(SolverError, "", method) as info, record_solves(steps=steps):
        solve(blow_up, y0=1.0, t=[0.0, 0.5, 2.0], method=method, options={"max_num_steps": 5000})
    assert 0.5 <= info.value.t_reached <= 1.1 and info.value.statistics.nfe > 10


@pytest.mark.parametrize("method", FIXED)
def test_blow_up_on_a_fixed_grid(method):
    with refused(SolverError, "finite|nan|inf", method), np.errstate(all="ignore"):
        solve(lambda t, y, params: anp.exp(y**2), y0=3.0, t=[0.0, 10.0], method=method, options={"step_size": 0.1})


@every_adaptive
@pytest.mark.parametrize("steps", (False, True))
@pytest.mark.parametrize("t", ([1.0, 0.5, 0.0], [0.0, -3.0], [0.0, 2.0]))
@pytest.mark.parametrize("first_step", (1e-3, 100.0))
def test_first_step_is_a_size_in_either_direction(method, steps, t, first_step):
    with record_solves(steps=steps):
        assert_decays(solve(t=t, method=method, options={"first_step": first_step}), t=t, method=method)


@every_adaptive
@pytest.mark.parametrize("t", ([1.0, 0.0], [0.0, 1.0]))
def test_max_step_is_kept_in_either_direction(method, t):
    with record_solves(steps=True) as solves:
        assert_decays(solve(t=t, method=method, options={"max_step": 0.02}), t=t, method=method)
    assert max(np.abs(solves[0].step_sizes)) <= 0.02 * (1 + 1e-9) and solves[0].steps >= 50


def test_stiff_problem_under_adams():
    with refused(SolverError, "") as info:
        solve(lambda t, y, params: -1e6 * (y - np.cos(t)), t=[0.0, 10.0], options={"max_num_steps": 500})
    assert info.value.t_reached < 1 and info.value.statistics.nfe > 100


# Printing and warnings -----------------------------------------------------------------------------------------------------------

PRINTING = """
    import os, subprocess, sys
    import numpy as np
    from solvers_bridge import SolverError, odeint, record_solves
    np.seterr(all="ignore")
    count = 0
    def say(*descriptors):
        global count
        count += 1
        for descriptor in descriptors:
            os.write(descriptor, b"written %d\\n" % count)
            print("printed", count, flush=True, file=sys.stdout if descriptor == 1 else sys.stderr)
            if count % 200 == 1:
                subprocess.run(["echo", "child", str(count)], stdout=descriptor)
    fixed = {"euler", "midpoint", "rk4"}
    def attempt(func, t=(0.0, 0.5, 1.0), **options):
        for method in sys.argv[1].split(","):
            for steps in (False, True):
                say(1, 2)
                try:
                    with record_solves(steps=steps):
                        odeint(func, [1.0, 2.0], t, method=method, rtol=1e-4, atol=1e-4, options={} if method in fixed else options)
                except (SolverError, ArithmeticError, SystemExit) as error:
                    pass
                say(1, 2)
    def good(t, y, params):
        say(1, 2)
        return -y
    def fails(t, y, params):
        say(1, 2)
        if t > 0.3:
            raise ArithmeticError("of mine")
        return -y
    def exits(t, y, params):
        raise SystemExit(3)
    def nan(t, y, params):
        say(1)
        return y * (np.nan if t > 0.3 else 1.0)
    attempt(good)
    attempt(fails)
    attempt(exits)
    attempt(nan)
    attempt(lambda t, y, params: y**2)
    attempt(lambda t, y, params: -y, (1.0, 0.0), first_step=0.1)
    attempt(lambda t, y, params: -y, (1e15, 1e15 + 1), first_step=1e-9)
    attempt(lambda t, y, params: 1e8 * np.sign(np.sin(1e7 * y)), max_num_steps=60)
    attempt(lambda t, y, params: 1e6 * np.random.default_rng(0).normal(size=2) * (-1) ** int(1e9 * t), max_num_steps=60)
    attempt(lambda t, y, params: -1e9 * (y - np.cos(t)), max_num_steps=60)
    print("end", count)
    """


def assert_only_ours(text, with_end):
    lines = text.replace("\r\n", "\n").splitlines()
    if with_end:
        assert lines.pop().startswith("end")
    foreign = [line for line in lines if line.split()[0] not in ("written", "printed", "child")]
    assert not foreign, foreign[:5]
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == sorted(numbers)
    by_count = {}
    for line in lines:
        by_count.setdefault(int(line.split()[1]), []).append(line.split()[0])
    for count, words in by_count.items():
        assert words == ["written", "printed"] + ["child"] * (count % 200 == 1)
    return set(by_count)


@pytest.mark.parametrize("methods", ("adams,bdf", "lsoda", "dopri5,dop853,radau,rk4"))
def test_nothing_but_the_users_own_output_reaches_pipes(methods):
    done = run_script(PRINTING, methods)
    count = int(done.stdout.split()[-1])
    assert assert_only_ours(done.stdout, True) == set(range(1, count + 1))
    assert len(assert_only_ours(done.stderr, False)) > 40


@pytest.mark.parametrize("methods", ("adams,bdf", "lsoda", "dopri5,dop853,radau,rk4"))
def test_nothing_but_the_users_own_output_reaches_a_terminal(methods):
    leader, follower = pty.openpty()
    errors_leader, errors_follower = pty.openpty()
    texts = {leader: b"", errors_leader: b""}

    def drain(descriptor):
        try:
            while chunk := os.read(descriptor, 65536):
                texts[descriptor] += chunk
        except OSError:
            pass

    readers = [threading.Thread(target=drain, args=(descriptor,), daemon=True) for descriptor in texts]
    for reader in readers:
        reader.start()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRINTING), methods], cwd=ROOT, stdout=follower, stderr=errors_follower
        )
        os.close(follower)
        os.close(errors_follower)
        assert child.wait(HANG) == 0
        for reader in readers:
            reader.join(HANG)
    finally:
        os.close(leader)
        os.close(errors_leader)
    out = texts[leader].decode()
    assert assert_only_ours(out, True) == set(range(1, int(out.split()[-1]) + 1))
    assert len(assert_only_ours(texts[errors_leader].decode(), False)) > 40


def test_unflushed_prints_and_other_threads_lose_nothing():
    done = run_script("""
        import os, sys, threading
        from solvers_bridge import odeint
        sys.setswitchinterval(1e-5)
        stop, beside = threading.Event(), 0
        def chatter():
            global beside
            while not stop.is_set():
                beside += 1
                os.write(1, b"beside %d\\n" % beside)
        thread = threading.Thread(target=chatter)
        thread.start()
        inside = 0
        def func(t, y, params):
            global inside
            inside += 1
            sys.stdout.write(f"inside {inside}\\n")
            return -y
        for method in ("adams", "lsoda", "bdf") * 12:
            odeint(func, [1.0], [0.0, 1.0], method=method)
        stop.set()
        thread.join()
        sys.stdout.flush()
        print("end", inside, beside)
        """)
    lines = done.stdout.splitlines()
    _, inside, beside = lines.pop().split()
    # Two writers may mix in the middle of a line; nothing may be missing.
    assert [line for line in lines if line.startswith("inside") and "beside" not in line][-1] == f"inside {inside}"
    assert done.stdout.count("inside") == int(inside)
    assert done.stdout.count("beside") == int(beside)


@pytest.mark.parametrize(
    "preparation",
    (
        "os.close(1)",
        "os.close(2)",
        "os.close(0)",
        "sys.stdout = None",
        "sys.stderr = None",
        "sys.stdout = sys.stderr = io.StringIO()",
        "sys.stdout.close()",
    ),
)
def test_streams_that_are_closed_or_replaced(preparation):
    done = run_script(
        """
        import io, os, sys
        import numpy as np
        from solvers_bridge import odeint
        exec(sys.argv[1])
        def fails(t, y, params):
            raise ArithmeticError("of mine")
        for method in ("adams", "lsoda", "dopri5", "radau"):
            np.testing.assert_allclose(odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0], method=method)[-1], np.exp(-1), rtol=1e-5)
            try:
                odeint(fails, 1.0, [0.0, 1.0], method=method)
            except ArithmeticError:
                pass
            else:
                raise AssertionError(method)
        os._exit(0)
        """,
        preparation,
    )
    assert "Error" not in done.stderr


def test_descriptors_do_not_leak():
    def fails(t, y, params):
        raise ArithmeticError

    def once():
        for method in ADAPTIVE:
            solve(method=method)
            with pytest.raises(ArithmeticError):
                solve(fails, method=method)
            with pytest.raises(SolverError):
                solve(oscillator, t=[0.0, 10.0], method=method, options={"max_num_steps": 5})

    once()
    before = os.listdir("/proc/self/fd"), [os.fstat(descriptor)[:3] for descriptor in (1, 2)]
    for _ in range(5):
        once()
    assert (os.listdir("/proc/self/fd"), [os.fstat(descriptor)[:3] for descriptor in (1, 2)]) == before


def test_output_of_a_solve_inside_another_reaches_a_pipe():
    done = run_script("""
        from solvers_bridge import odeint
        def outer(t, y, params):
            print("outer", flush=True)
            inner = odeint(lambda s, x, p: print("inner", flush=True) or -x, 1.0, [0.0, 1.0], method="dopri5")
            try:
                odeint(lambda s, x, p: 1 / 0, 1.0, [0.0, 1.0], method="dop853")
            except ZeroDivisionError:
                print("caught", flush=True)
            return -y * inner[-1]
        for method in ("adams", "lsoda", "dopri5"):
            print("begin", flush=True)
            odeint(outer, 1.0, [0.0, 0.5, 1.0], method=method)
            print("end", flush=True)
        """)
    lines = done.stdout.splitlines()
    assert done.stderr == "" and set(lines) == {"begin", "outer", "inner", "caught", "end"}
    assert lines.count("begin") == lines.count("end") == 3 and lines.count("outer") == lines.count("caught") > 30
    assert lines[0] == "begin" and lines[-1] == "end"
    after = [lines[i + 1] for i, line in enumerate(lines[:-1]) if line == "outer"]
    assert set(after) == {"inner"}


def test_interrupts_at_any_moment_leave_everything_in_order():
    done = run_script("""
        import os, random, signal, sys
        import numpy as np
        from scipy.integrate import _ode, _odepack_py
        from solvers_bridge import odeint
        locks = _ode.VODE_LOCK, _ode.LSODA_LOCK, _odepack_py.ODE_LOCK
        def handler(*_):
            raise KeyboardInterrupt
        decay = lambda t, y, params: -y
        t = np.linspace(0.0, 1.0, 20)
        for method in ("adams", "lsoda"):
            odeint(decay, 1.0, t, method=method)
        descriptors = sorted(os.listdir("/proc/self/fd"))
        streams = [os.fstat(descriptor)[:3] for descriptor in (1, 2)]
        signal.signal(signal.SIGALRM, handler)
        random.seed(1)
        interrupted = 0
        for attempt in range(600):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2.5e-3))
                    while True:
                        odeint(decay, 1.0, t, method=("adams", "lsoda")[attempt % 2])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            assert [os.fstat(descriptor)[:3] for descriptor in (1, 2)] == streams, f"streams changed, attempt {attempt}"
        assert interrupted == 600
        assert sorted(os.listdir("/proc/self/fd")) == descriptors, "descriptors leaked"
        assert (_ode.VODE_LOCK, _ode.LSODA_LOCK, _odepack_py.ODE_LOCK) == locks, "SciPy's locks were not put back"
        for method in ("adams", "lsoda", "bdf"):
            np.testing.assert_allclose(odeint(decay, 1.0, t, method=method), np.exp(-t), rtol=1e-5)
        print("OK")
        """)
    assert done.stdout == "OK\n"
    assert_only_f2py(done.stderr)


def noise(t, y, params):
    """No function at all, so no corrector iteration converges."""
    return 1e30 * noise.generator.normal(size=y.shape)


@pytest.fixture(autouse=True)
def the_same_noise():
    noise.generator = np.random.default_rng(0)


@pytest.mark.parametrize(
    "method, func, text",
    [
        ("adams", noise, "corrector convergence failed"),
        ("bdf", noise, "corrector convergence failed"),
        ("adams", blow_up, r"dvode--.*t \+ h = t"),
        ("bdf", blow_up, r"dvode--.*t \+ h = t"),
        ("lsoda", blow_up, r"lsoda--.*t \+ h = t"),
    ],
)
@pytest.mark.parametrize("steps", (False, True))
def test_the_error_says_what_fortran_printed(method, func, text, steps):
    with refused(SolverError, f"(?i){text}", method) as info, record_solves(steps=steps):
        solve(func, y0=1.0, t=[0.0, 2.0], method=method, options={"max_num_steps": 5000})
    assert "Fortran" in info.value.reason


FAILURES = (blow_up, noise, lambda t, y, params: y * np.nan, lambda t, y, params: -1e9 * (y - np.cos(t)))


@every_adaptive
@pytest.mark.parametrize("action", ("always", "error"))
@pytest.mark.parametrize("steps", (False, True))
def test_no_warning_of_scipy_escapes(method, action, steps):
    with warnings.catch_warnings(record=action == "always") as caught:
        warnings.simplefilter(action)
        for func in FAILURES:
            with refused(SolverError, "", method) as info, record_solves(steps=steps):
                solve(func, t=[0.0, 2.0], method=method, options={"max_num_steps": 50})
            assert info.value.statistics.nfe > 0 and info.value.t_reached <= 2.0
    assert not [
        str(warning.message) for warning in caught or [] if "scipy" in warning.filename or "solvers_bridge" in warning.filename
    ]


def test_warnings_as_errors_from_the_command_line():
    done = run_script(
        """
        import sys
        import numpy as np
        from solvers_bridge import SolverError, odeint
        np.seterr(all="ignore")
        for method in ("adams", "bdf", "lsoda", "dopri5", "dop853"):
            for t in ([0.0, 2.0], [0.0, 0.5, 2.0]):
                try:
                    odeint(lambda t, y, params: y**2, 1.0, t, method=method, options={"max_num_steps": 100})
                except SolverError as error:
                    assert error.t_reached > 0.5, error
                else:
                    raise AssertionError(method)
                assert abs(odeint(lambda t, y, params: -y, 1.0, [0.0, 1.0], method=method)[1] - np.exp(-1)) < 1e-5
        print("OK")
        """,
        flags=("-W", "error"),
    )
    assert done.stdout == "OK\n" and done.stderr == ""


# Sizes ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", (294_912, 700_000))
@pytest.mark.parametrize("method", ("adams", "lsoda"))
def test_large_systems_are_solved_in_little_memory(method, size):
    done = run_script(
        """
        import resource, sys
        import numpy as np
        from solvers_bridge import odeint
        method, size = sys.argv[1], int(sys.argv[2])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ys = odeint(lambda t, y, params: -y, np.ones(size), [0.0, 1.0], method=method, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(ys[-1], np.exp(-1), rtol=1e-2)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
        """,
        method,
        size,
    )
    assert int(done.stdout) < 8 * size * 60 and done.stderr == ""


@pytest.mark.parametrize(
    "method, jacobian",
    [
        ("lsoda", "finite_difference"),
        ("lsoda", "autodiff"),
        ("bdf", "autodiff"),
        ("adams", "finite_difference"),
        ("radau", None),
        ("radau", "autodiff"),
    ],
)
@pytest.mark.parametrize("size", (294_912,))
def test_dense_jacobians_of_large_systems_are_refused_at_once(method, jacobian, size):
    run_script(
        """
        import resource, sys
        import numpy as np
        from solvers_bridge import odeint
        method, jacobian, size = sys.argv[1], {"None": None}.get(sys.argv[2], sys.argv[2]), int(sys.argv[3])
        def never(t, y, params):
            raise AssertionError("func was called")
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        try:
            odeint(never, np.ones(size), [0.0, 1.0], method=method, options={"jacobian": jacobian})
        except ValueError as error:
            assert "jacobian" in str(error) and f"{size} x {size}" in str(error) and "diagonal" in str(error), error
        else:
            raise AssertionError("not refused")
        """,
        method,
        jacobian,
        size,
    )

"""Arguments that make no sense: an error that names them, before func is called; and real ones of every kind that do."""

import numpy as np
import pytest

from solvers_bridge import odeint
from tests.helpers import (
    FIXED,
    IMPLICIT,
    Y0,
    T,
    assert_decays,
    every_adaptive,
    every_family,
    raising,
    refused,
    solve,
)

never = raising(AssertionError("func was called before the arguments were checked"))
BAD_TIMES = {
    "empty": ([], ValueError, "one-dimensional with at least one"),
    "scalar": (0.5, ValueError, "one-dimensional"),
    "two_dimensional": ([[0.0, 1.0]], ValueError, "one-dimensional"),
    "no_order": ([0.0, 1.0, 0.5], ValueError, "increasing or decreasing"),
    "back_and_forth": ([1.0, 1.0, 0.5, 0.5, 0.7], ValueError, "increasing or decreasing"),
    "nan": ([0.0, np.nan, 1.0], ValueError, "finite"),
    "inf": ([0.0, np.inf], ValueError, "finite"),
    "complex": ([0.0, 1.0j], TypeError, "real"),
    "string": (["0", "1"], TypeError, "real"),
    "none": (None, TypeError, "real"),
    "ragged": ([[0.0], [1.0, 2.0]], (TypeError, ValueError), ""),
}


@pytest.mark.parametrize("name", BAD_TIMES)
def test_bad_times(name):
    t, kind, match = BAD_TIMES[name]
    with refused(kind, rf"\bt must be.*{match}"):
        solve(never, t=t)


@every_family
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


@pytest.mark.parametrize("name", BAD_STATES)
def test_bad_initial_states(name):
    y0, kind, match = BAD_STATES[name]
    with refused(kind, f"y0 must be.*{match}|y0 must hold.*{match}"):
        solve(never, y0=y0)


@every_family
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
def test_bad_tolerances(argument, name):
    match = "shape" if name in ("wrong_shape", "too_many_dimensions") else "positive"
    with refused((ValueError, TypeError), rf"^{argument}.*{match}"):
        solve(never, **{argument: BAD_TOLERANCES[name]})


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


@every_family
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
        for method, key in (("adams", "first_step"), ("dopri5", "max_step"))
        for value in (0, -0.1, np.nan, np.inf, "small", 1j, [0.1])
    ),
    *(("lsoda", "max_num_steps", value) for value in (0, -3, 1.5, "5", True)),
    *(
        (method, "max_order", value)
        for method, value in (("adams", 13), ("bdf", 6), ("lsoda", 13), ("adams", 0), ("bdf", 2.0), ("lsoda", "5"))
    ),
    *((method, "jacobian", "foo") for method in IMPLICIT),
    *(("bdf", "jacobian", value) for value in (True, ["diagonal"], np.eye(2))),
    ("radau", "jacobian", "diagonal"),
    *(("rk4", "step_size", value) for value in (0, -0.1, np.nan, "small")),
    *(("adams", "jump_t", value) for value in ("soon", [[1.0]], [np.nan], 1.0)),
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
        ({"restrat": "warm"}, "reconstruction.*checkpoint.*restart.*norm"),
    ],
)
def test_bad_adjoint_options(options, match):
    with refused(ValueError, rf"adjoint_options.*{match}"):
        solve(never, adjoint_options=options)


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda", "radau"))
def test_discrete_adjoint_of_a_method_without_explicit_stages(method):
    with refused(ValueError, f"adjoint_method.*euler, midpoint, rk4, dopri5 or dop853.*{method}", method):
        solve(never, method=method, adjoint_method="discrete")


@pytest.mark.parametrize("func", (None, 3.0, "decay", Y0), ids=("none", "number", "name", "array"))
def test_func_that_is_no_function(func):
    with refused(TypeError, "func must be a function.*TensorFlowDynamics"):
        solve(func)


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
def test_bad_params(params, where):
    with refused(TypeError, f"{where}.*must be real numbers"):
        solve(never, params=params)


MASKED = np.ma.masked_array([1.0, 2.0], mask=[False, True])


@pytest.mark.parametrize(
    "name, value",
    (
        ("y0", MASKED),
        ("y0", [np.ones(2), {"a": MASKED}]),
        ("params", MASKED),
        ("params", {"a": [MASKED, 1.0]}),
        ("t", MASKED),
        ("rtol", MASKED),
    ),
    ids=str,
)
def test_masked_arrays(name, value):
    """Before any work: func is not asked."""
    arguments = {"y0": np.ones(2), "t": [0.0, 1.0], "params": (), name: value}
    with pytest.raises(TypeError, match=f"^{name} must not be or hold a masked array"):
        odeint(lambda t, y, params: 1 / 0, **arguments)


@pytest.mark.parametrize("made", (lambda y: MASKED * y, lambda y: [y[0], MASKED[1]]), ids=("array", "list"))
def test_masked_numbers_from_func(made):
    with pytest.raises(TypeError, match="func returned a masked array"):
        odeint(lambda t, y, params: made(y), np.ones(2), [0.0, 1.0])

"""What a SolverError keeps of a solve that failed: the output times that were reached, and the states there."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.tracer import isbox

from solvers_bridge import SolverError, odeint, odeint_event, record_solves
from tests.helpers import ADAPTIVE, ADAPTIVE_FAMILIES, FIXED, blow_up

T = np.array([0.0, 0.25, 0.5, 0.75, 1.5, 2.0])  # y' = y**2 from 1 has its pole at 1


def failure(y0=1.0, t=T, func=blow_up, params=(), **means):
    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        odeint(func, y0, t, params, **{"rtol": 1e-8, "atol": 1e-8, **means})
    return info.value


@pytest.mark.parametrize("steps", (False, True))
@pytest.mark.parametrize("method", ADAPTIVE)
def test_states_up_to_the_pole(method, steps):
    with record_solves(steps=steps):
        error = failure(method=method, options={"max_num_steps": 500})
    np.testing.assert_array_equal(error.ts, T[:4])
    np.testing.assert_allclose(error.ys, 1 / (1 - T[:4]), rtol=1e-5)
    assert 0.75 <= error.t_reached <= 1.1


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_lsoda_in_one_call_at_any_row(fails_at):
    """scipy.integrate.odeint leaves rows behind the failing one as they were in memory."""
    t = np.linspace(0.0, 0.8, 9)
    func = lambda t, y, p: np.where(t > 0.1 * fails_at - 0.05, np.nan, -y)
    error = failure(t=t, func=func, method="lsoda")
    assert len(error.ts) in (fails_at, fails_at - 1) and error.statistics.steps < 100
    np.testing.assert_allclose(error.ys, np.exp(-error.ts), rtol=1e-5)
    assert error.ts[-1] - 1e-9 <= error.t_reached <= 0.1 * fails_at + 0.05


@pytest.mark.parametrize("sign", (1.0, -1.0))
@pytest.mark.parametrize("options", ({}, {"stay_inside": True}), ids=str)
def test_lsoda_that_says_it_has_succeeded_at_a_pole(options, sign):
    """Without a limit its steps shrink until they are lost in the time, and it hands back rows that it has not reached."""
    error = failure(t=sign * np.array([0.0, 0.5, 2.0]), func=lambda t, y, p: sign * y**2, method="lsoda", options=options)
    np.testing.assert_array_equal(error.ts, sign * np.array([0.0, 0.5]))
    np.testing.assert_allclose(error.ys, [1.0, 2.0], rtol=1e-5)
    assert 0.9 < sign * error.t_reached < 1.1 and "func returned" in error.reason


@pytest.mark.parametrize("method", FIXED)
def test_states_on_a_fixed_grid(method):
    error = failure(func=lambda t, y, p: np.where(t < 0.6, -y, np.nan), method=method, options={"step_size": 0.01})
    np.testing.assert_array_equal(error.ts, T[:3])
    np.testing.assert_allclose(error.ys, np.exp(-T[:3]), rtol=5e-3)


@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "radau"))
def test_backwards_in_time(method):
    error = failure(t=-T, func=lambda t, y, p: -(y**2), method=method, options={"max_num_steps": 500})
    np.testing.assert_array_equal(error.ts, -T[:4])
    np.testing.assert_allclose(error.ys, 1 / (1 - T[:4]), rtol=1e-5)


def test_nested_and_shaped_as_y0():
    y0 = {"a": np.full((2, 3), 1.0), "b": [0.5, np.array([1.0])]}

    def func(t, y, p):
        return {"a": y["a"] ** 2, "b": [0.0 * y["b"][0], y["b"][1] ** 2]}

    error = failure(y0, func=func, method="dopri5", options={"max_num_steps": 500})
    assert error.ts.shape == (4,) and error.ys["a"].shape == (4, 2, 3) and error.ys["b"][1].shape == (4, 1)
    np.testing.assert_array_equal(error.ys["b"][0], np.full(4, 0.5))
    np.testing.assert_allclose(error.ys["a"][-1], np.full((2, 3), 4.0), rtol=1e-5)


@pytest.mark.parametrize("means", ({"adjoint_options": {"checkpoint": 7}}, {"options": {"jump_t": [0.1, 0.6]}}), ids=str)
@pytest.mark.parametrize("method", ("adams", "lsoda", "dopri5", "radau"))
def test_only_the_times_that_were_asked_for(method, means):
    """Checkpoints and jumps are times of ours."""
    means["options"] = {"max_num_steps": 500, **means.get("options", {})}
    error = failure(method=method, **means)
    np.testing.assert_array_equal(error.ts, T[:4])
    np.testing.assert_allclose(error.ys, 1 / (1 - T[:4]), rtol=1e-5)


def test_repeated_times():
    error = failure(t=[0.0, 0.5, 0.5, 2.0], method="dopri5", options={"max_num_steps": 500})
    np.testing.assert_array_equal(error.ts, [0.0, 0.5, 0.5])
    np.testing.assert_allclose(error.ys, [1.0, 2.0, 2.0], rtol=1e-5)


def test_of_a_solve_that_is_differentiated():
    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        grad(lambda y0: anp.sum(odeint(blow_up, y0, T, method="dopri5", options={"max_num_steps": 500})))(1.0)
    np.testing.assert_allclose(info.value.ys, 1 / (1 - T[:4]), rtol=1e-5)


def test_a_reverse_solve_has_none():
    """Its unknowns are not the user's."""

    def stiff_backwards(t, y, p):
        return -50.0 * (y - anp.cos(t))

    means = {"method": "dopri5", "adjoint_options": {"reconstruction": "solve", "max_num_steps": 20}}
    with pytest.raises(SolverError) as info:
        grad(lambda y0: odeint(stiff_backwards, y0, [0.0, 1.0], **means)[-1])(1.0)
    assert info.value.statistics.direction == "backward" and info.value.ts is None and info.value.ys is None


def test_no_nul_characters_in_messages():
    assert str(SolverError("before\0after\0\0")) == "beforeafter"


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda"))
def test_no_nul_characters_of_the_fortran(method):
    """VODE's and LSODA's messages are of fixed length."""
    error = failure(func=lambda t, y, p: np.where(t > 0.3, np.nan, -y), method=method)
    assert "\0" not in str(error) and str(error).isprintable()


def test_a_stiff_bdf_is_told_of_jacobians():
    stiff = lambda t, y, p: -1e6 * (y - np.cos(t))
    message = str(failure(func=stiff, method="bdf", options={"max_num_steps": 300}))
    assert "options['jacobian'] = 'finite_difference'" in message and "functional" in message
    ys = odeint(stiff, 1.0, T, method="bdf", options={"max_num_steps": 300, "jacobian": "finite_difference"})
    np.testing.assert_allclose(ys, np.cos(T), atol=1e-5)
    for means in ({"method": "adams"}, {"method": "bdf", "options": {"jacobian": "diagonal", "max_num_steps": 3}}):
        means["options"] = {"max_num_steps": 300, **means.get("options", {})}
        assert "functional" not in str(failure(func=stiff, **means))


# --- radau's linear algebra.


def infinite_jacobian(t, y, p):
    """sqrt has an infinite slope at 0."""
    with np.errstate(all="ignore"):
        return -np.sign(y) * np.sqrt(np.abs(y))


@pytest.mark.parametrize(
    "func, y0, options",
    (
        (infinite_jacobian, 0.5, {"jacobian": lambda t, y, p: np.array([[np.inf]])}),
        (lambda t, y, p: np.where(t > 0.5, np.nan, -y), 1.0, {}),
        (lambda t, y, p: np.where(t > 0.5, np.inf, -y), 1.0, {"first_step": 0.4}),
    ),
)
def test_radau_fails_with_a_solver_error(func, y0, options):
    error = failure(y0, [0.0, 0.25, 1.0], func=func, method="radau", options=options)
    assert error.statistics.method == "radau" and "radau (forward) stopped at" in str(error)
    assert len(error.ts) == len(error.ys) >= 1


def test_radau_and_tolerances_far_below_rounding():
    """SciPy warns, and puts its own in their place."""
    try:
        ys = odeint(lambda t, y, p: -y, 1.0, [0.0, 1.0], method="radau", rtol=1e-300, atol=1e-150)
    except SolverError:
        return
    assert ys[1] == pytest.approx(np.exp(-1), rel=1e-9)


def test_value_errors_of_func_are_not_radaus():
    def func(t, y, p):
        if t > 0.5:
            np.linalg.cholesky(np.array([[np.nan]]))
            raise ValueError("array must not contain infs or NaNs, says the user")
        return -y

    with pytest.raises(ValueError, match="says the user"):
        odeint(func, 1.0, [0.0, 1.0], method="radau")
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        odeint(lambda t, y, p: np.linalg.solve(np.zeros((1, 1)), y.reshape(1)).reshape(()), 1.0, [0.0, 1.0], method="radau")


def test_a_stiff_reverse_solve_of_radau():
    """Reconstructed backwards, z(t) overflows: a SolverError where the user insists, a right gradient where not."""

    def end(k, **options):
        means = {"method": "radau", "rtol": 1e-6, "atol": 1e-6, "adjoint_options": options}
        return odeint(lambda t, y, k: -k * (y**3 - anp.cos(t)), 1.2, [0.0, 3.0], k, **means)[-1]

    exactly = (odeint_at(60.01) - odeint_at(59.99)) / 0.02
    assert grad(end)(60.0) == pytest.approx(exactly, rel=1e-2)
    with pytest.raises(SolverError), np.errstate(all="ignore"):
        grad(lambda k: end(k, reconstruction="solve"))(60.0)


def odeint_at(k):
    return odeint(lambda t, y, k: -k * (y**3 - np.cos(t)), 1.2, [0.0, 3.0], k, method="lsoda", rtol=1e-11, atol=1e-11)[-1]


# --- a solve inside func.


def raises_inside():
    """func = -y, until t > 0.5, when a solve inside it fails; and what is in that one's error."""
    said = {}

    def func(t, y, p):
        if t > 0.5:
            try:
                odeint(blow_up, [1.0, 1.0], [0.0, 0.3, 0.6, 0.9, 2.0], method="dopri5", options={"max_num_steps": 100})
            except SolverError as error:
                said.update(vars(error))
                raise
        return -y

    return func, said


@pytest.mark.parametrize("outer", (*ADAPTIVE_FAMILIES, "rk4"))
@pytest.mark.parametrize("size", (1, 2))
def test_an_error_of_a_solve_inside_func_comes_through_unchanged(outer, size):
    """Of as many unknowns as the outer one, and of more."""
    func, said = raises_inside()
    error = failure(np.ones(size), [0.0, 0.2, 0.7, 0.8, 0.9, 1.0], func=func, method=outer)
    assert all(getattr(error, name) is value for name, value in said.items())
    np.testing.assert_array_equal(error.ts, [0.0, 0.3, 0.6, 0.9])
    np.testing.assert_allclose(error.ys, np.stack([1 / (1 - error.ts)] * 2, axis=1), rtol=1e-5)


@pytest.mark.parametrize("reconstruction", ("solve", "interpolate"))
def test_an_error_of_a_solve_inside_a_reverse_solve_comes_through_unchanged(reconstruction):
    func, said = raises_inside()
    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        means = {"method": "dopri5", "adjoint_options": {"reconstruction": reconstruction}}
        grad(lambda y0: anp.sum(odeint(lambda t, y, p: func(t if isbox(y) else 0.0, y, p), y0, [0.0, 1.0], **means)))(np.ones(2))
    assert all(getattr(info.value, name) is value for name, value in said.items())
    assert info.value.statistics.direction == "forward" and info.value.statistics.reconstruction_gap is None
    np.testing.assert_array_equal(info.value.ts, [0.0, 0.3, 0.6, 0.9])


def test_an_event_that_is_not_found_inside_func_comes_through_unchanged():
    def func(t, y, p):
        odeint_event(lambda t, y, p: 1.0, 0.0, 0.0, lambda t, y, p: y + 1.0, t_max=0.5, method="dopri5")

    error = failure([1.0, 2.0], func=func, method="dopri5")
    assert "event did not cross zero" in str(error) and error.statistics is None and error.t_reached == 0.5


@pytest.mark.parametrize("y0", (np.ones((2, 2)), {"a": np.ones(3), "b": [np.ones((1, 2))]}), ids=("array", "nested"))
@pytest.mark.parametrize("t_max", (None, 0.5))
def test_of_an_event_states_are_the_start(y0, t_max):
    """Whether the solution has its pole before the event, at 5 after many horizons, or the end comes."""
    leaf = lambda y: y if isinstance(y0, np.ndarray) else y["a"]
    square = lambda y: {"a": 0.2 * y["a"] ** 2, "b": [0.2 * y["b"][0] ** 2]} if isinstance(y, dict) else 0.2 * y**2
    with pytest.raises(SolverError) as info, np.errstate(all="ignore"):
        event = lambda t, y, p: anp.sum(leaf(y)) + 1.0
        odeint_event(lambda t, y, p: square(y), y0, 0.25, event, t_max=t_max, method="dopri5", options={"max_num_steps": 500})
    np.testing.assert_array_equal(info.value.ts, [0.25])
    np.testing.assert_array_equal(leaf(info.value.ys), leaf(y0)[None])
    if isinstance(y0, dict):
        np.testing.assert_array_equal(info.value.ys["b"][0], y0["b"][0][None])

"""options["jacobian"] as a function of the user's, of a dense or banded matrix, in vode, lsoda and radau."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import SolverError, odeint, record_solves

METHODS = ("adams", "bdf", "lsoda", "radau")
every_method = pytest.mark.parametrize("method", METHODS)
every_banded_method = pytest.mark.parametrize("method", METHODS[:3])
N = 8
DIFFUSION = 2000.0 * (np.eye(N, k=-1) - 2 * np.eye(N) + 0.5 * np.eye(N, k=1) + 0.25 * np.eye(N, k=2))
Y0 = np.sin(np.arange(1.0, N + 1))
T = [0.0, 0.1, 0.5]
BANDS = (1, 2)


def reaction(t, y, params):
    """Stiff, and coupled to two neighbours above and one below: bands (1, 2)."""
    matrix, rate = params
    return anp.dot(matrix, y) + 2000.0 * (1.0 - rate * y**3)


def its_jacobian(t, y, params):
    matrix, rate = params
    return matrix - np.diag(6000.0 * rate * y**2)


def packed(matrix):
    """Entry (i, j) in row 2 + i - j."""
    rows = np.zeros((4, N))
    for i in range(N):
        for j in range(max(0, i - 1), min(N, i + 3)):
            rows[2 + i - j, j] = matrix[i, j]
    return rows


def solve(method, jacobian, steps=False, backwards=False, **options):
    """(states, statistics) with jacobian as the option; backwards: the mirrored problem."""

    def mirrored(t, y, params):
        return -reaction(-t, y, params)

    func, t = (mirrored, [-time for time in T]) if backwards else (reaction, T)
    with record_solves(steps=steps) as solves:
        states = odeint(func, Y0, t, (DIFFUSION, 1.0), method=method, options={"jacobian": jacobian, **options})
    return states, solves[0]


@pytest.mark.parametrize("bands", [None, BANDS], ids=str)
def test_it_is_asked_at_the_times_of_the_solve(bands):
    seen = []

    def jacobian(t, y, params):
        seen.append(t)
        return its_jacobian(t, y, params)

    solve("bdf", jacobian, **({} if bands is None else {"bands": bands}))
    assert min(seen) >= 0.0 and len(set(seen)) > 1


@every_method
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_it_is_the_jacobian_that_is_used(method, steps, backwards):
    """Steps and states of those by differentiation, with evaluations of func for none of it."""

    def jacobian(*args):
        return -its_jacobian(*args) if backwards else its_jacobian(*args)

    given, statistics = solve(method, jacobian, steps, backwards)
    differentiated, same = solve(method, "autodiff", steps, backwards)
    np.testing.assert_allclose(given, differentiated, rtol=1e-9)
    assert statistics.nje == same.nje > 0 and statistics.nfe == same.nfe
    assert statistics.nfe < solve(method, "finite_difference", steps, backwards)[1].nfe


@every_method
def test_a_wrong_one_costs_evaluations(method):
    """It is asked at (t, y, params), y and params as the user's own."""
    seen = []

    def looked_at(t, y, params):
        seen.append((t, y.copy(), params[0] is DIFFUSION))
        return its_jacobian(t, y, params)

    right = solve(method, looked_at, max_num_steps=2000)[1].nfe
    assert all(0.0 <= t <= 1.0 and y.shape == (N,) and same for t, y, same in seen)
    try:
        assert solve(method, lambda *args: 0.5 * its_jacobian(*args), max_num_steps=2000)[1].nfe > 1.2 * right
    except SolverError as error:
        assert "max_num_steps" in error.reason and error.statistics.nfe > 1.2 * right


@every_banded_method
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("jacobian", ["dense", "packed", "autodiff", "finite_difference"])
def test_banded(method, jacobian, steps):
    """As a whole matrix whose bands are taken, or packed by bands; the same steps as with the whole."""
    kinds = {"dense": its_jacobian, "packed": lambda *args: packed(its_jacobian(*args))}
    banded, statistics = solve(method, kinds.get(jacobian, jacobian), steps=steps, bands=BANDS)
    whole, same = solve(method, jacobian if jacobian == "finite_difference" else its_jacobian, steps=steps)
    np.testing.assert_allclose(banded, whole, rtol=1e-6)
    assert statistics.steps == same.steps
    if jacobian == "finite_difference":
        # A group of columns an evaluation: lower + upper + 1 for each Jacobian instead of n.
        assert statistics.nfe <= same.nfe - (N - sum(BANDS) - 1) * statistics.nje
    else:
        assert statistics.nfe == same.nfe


@every_method
@pytest.mark.parametrize("bands", [None, pytest.param(BANDS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reconstruction", ["auto", "interpolate"])
def test_gradients_with_a_given_jacobian(method, bands, reconstruction):
    """The reverse solve, whose Jacobian is another, has its own by differentiation."""
    if method == "radau" and (bands is not None or reconstruction == "auto"):
        pytest.skip("radau knows no bands, and takes a minute over what is done again")

    def loss(rate, **means):
        return anp.sum(odeint(reaction, Y0, T, (DIFFUSION, rate), method=method, **means)[-1])

    options = {"jacobian": its_jacobian} if bands is None else {"jacobian": its_jacobian, "bands": bands}
    h = 1e-4
    tight = {"rtol": 1e-11, "atol": 1e-13, "options": {"jacobian": "autodiff"}}
    want = (loss(1.0 + h, **tight) - loss(1.0 - h, **tight)) / (2 * h)
    got = grad(loss)(1.0, options=options, rtol=1e-8, atol=1e-10, adjoint_options={"reconstruction": reconstruction})
    assert got == pytest.approx(want, rel=1e-4)


@every_method
def test_of_a_nested_state(method):
    """The matrix is that of the flat state, its parts laid end to end."""

    def func(t, y, rate):
        return {"x": -rate * y["x"] + y["z"], "z": -(y["z"] ** 3)}

    def jacobian(t, y, rate):
        return np.array([[-rate, 1.0], [0.0, -3 * y["z"].item() ** 2]])

    y0, means = {"x": np.ones(1), "z": np.array([0.5])}, {"method": method}
    got = odeint(func, y0, T, 50.0, options={"jacobian": jacobian}, **means)
    want = odeint(func, y0, T, 50.0, options={"jacobian": "autodiff"}, **means)
    np.testing.assert_allclose(got["x"], want["x"], rtol=1e-9)


@every_method
@pytest.mark.parametrize(
    "jacobian, kind, match",
    [
        (lambda t, y, params: np.zeros((2, 3)), ValueError, rf"must return an array of shape \({N}, {N}\) got \(2, 3\)"),
        (lambda t, y, params: None, (TypeError, ValueError), "jacobian|NoneType"),
        (lambda t, y, params: 1 / 0, ZeroDivisionError, "division"),
        ("exact", ValueError, "or a function"),
    ],
    ids=["shape", "None", "raises", "name"],
)
def test_bad_jacobians(method, jacobian, kind, match):
    with pytest.raises(kind, match=match):
        solve(method, jacobian)
    assert solve(method, its_jacobian)[0].shape == (3, N)


@pytest.mark.parametrize(
    "method, options, match",
    [
        ("bdf", {"bands": (1, 2)}, "needs options\\['jacobian'\\]"),
        ("bdf", {"jacobian": "diagonal", "bands": (1, 1)}, "got 'diagonal'"),
        ("lsoda", {"jacobian": its_jacobian, "bands": 3}, r"must be \(lower, upper\)"),
        ("lsoda", {"jacobian": its_jacobian, "bands": (-1, 2)}, "from 0"),
        ("radau", {"jacobian": its_jacobian, "bands": (1, 2)}, "unknown 'bands'"),
        ("dopri5", {"jacobian": its_jacobian}, "unknown 'jacobian'"),
    ],
    ids=str,
)
def test_bad_bands(method, options, match):
    with pytest.raises(ValueError, match=match):
        odeint(reaction, Y0, T, (DIFFUSION, 1.0), method=method, options=options)


@pytest.mark.parametrize("reconstruction", ["auto", "interpolate"])
def test_bands_of_the_adjoint_system(reconstruction):
    """They are of all its unknowns; where the state is known there are fewer, and none of them."""
    n = 2 * N + DIFFUSION.size + 2  # state, adjoint, parameters, t

    def loss(rate, **means):
        return anp.sum(odeint(reaction, Y0, T, (DIFFUSION, rate), method="bdf", rtol=1e-6, atol=1e-8, **means)[-1])

    bands = {"jacobian": "finite_difference", "bands": (n - 1, n - 1), "reconstruction": reconstruction}
    assert grad(loss)(1.0, adjoint_options=bands) == pytest.approx(grad(loss)(1.0), rel=1e-3)


@every_method
@pytest.mark.parametrize("steps", (False, True))
def test_it_may_write_into_the_state_and_into_one_buffer(method, steps):
    buffer = np.empty((N, N))

    def jacobian(t, y, params):
        buffer[:] = its_jacobian(t, y, params)
        y[:] = 7.0
        return buffer

    np.testing.assert_array_equal(solve(method, jacobian, steps)[0], solve(method, its_jacobian, steps)[0])

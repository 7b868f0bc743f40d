"""A plain odeint call takes the steps that SciPy's own integrators take: evaluations, states, steps and orders, bit for bit."""

import numpy as np
import pytest
import scipy.integrate

from solvers_bridge import odeint, record_solves

TOLERANCES = (1e-3, 1e-6, 1.5e-8)
FORWARDS = np.array([0.0, 0.3, 1.0, 4.0, 9.0])
TIMES = {
    "one output": np.array([0.0, 9.0]),
    "increasing": FORWARDS,
    "decreasing": FORWARDS[::-1],
    "many": np.linspace(0.0, 9.0, 40),
}
Y0 = np.array([2.0, 0.1])
# In time units of the problem, whose solution turns about once in 9.
FIRST_STEP, MAX_STEP, MAX_ORDER = 1e-3, 0.03, 3
NOT_LIMITED = 10**6


def f(t, y, params=()):
    """Van der Pol, mildly stiff, driven."""
    return np.array([y[1], 3 * (1 - y[0] ** 2) * y[1] - y[0] + 0.2 * np.sin(t)])


def f_backwards(t, y, params=()):
    """f with time reversed: as calm to follow towards decreasing t as f is towards increasing t."""
    return -f(-t, y)


class Counted:
    def __init__(self, func):
        self.func, self.calls = func, 0

    def __call__(self, t, y):
        self.calls += 1
        return self.func(t, y)


def by_ode(name, func, y0, ts, rtol, atol, **parameters):
    """(states, evaluations, integrator) of scipy.integrate.ode."""
    func = Counted(func)
    solver = scipy.integrate.ode(func).set_integrator(name, rtol=rtol, atol=atol, nsteps=NOT_LIMITED, **parameters)
    if name in ("dopri5", "dop853"):
        # Without one, Hairer's code reads a flag that was never set (IRTRN), by which it may evaluate k1 again in each step.
        solver.set_solout(lambda t, y: None)
    solver.set_initial_value(y0, ts[0])
    states = np.array([y0, *(solver.integrate(t).copy() for t in ts[1:])])
    assert solver.successful()
    return states, func.calls, solver._integrator


def scipy_solve(method, func, y0, ts, rtol, atol, *, first_step=None, max_step=None, max_order=None):
    """(states, evaluations, steps or None, last order or None): what SciPy itself does."""
    sign = np.sign(ts[-1] - ts[0])
    steps = {"first_step": 0.0 if first_step is None else sign * first_step, "max_step": max_step or 0.0}
    if method == "radau":
        func = Counted(func)
        means = {"rtol": rtol, "atol": atol, "first_step": first_step, "max_step": max_step or np.inf}
        between = scipy.integrate.solve_ivp(func, (ts[0], ts[-1]), y0, "Radau", t_eval=ts[:-1], **means).y.T
        nfe = func.calls
        # At the end, the state itself; t_eval would give the interpolant, which differs in the last bit.
        stepwise = scipy.integrate.solve_ivp(func, (ts[0], ts[-1]), y0, "Radau", **means)
        return np.vstack([between, stepwise.y[:, -1]]), nfe, len(stepwise.t) - 1, None
    if method == "lsoda":
        orders = {} if max_order is None else {"max_order_ns": max_order, "max_order_s": max_order}
        states, nfe, integrator = by_ode("lsoda", func, y0, ts, rtol, atol, **steps, **orders)
    elif method in ("adams", "bdf"):
        orders = {} if max_order is None else {"order": max_order}
        states, nfe, integrator = by_ode("vode", func, y0, ts, rtol, atol, method=method, **steps, **orders)
    else:
        states, nfe, _ = by_ode(method, func, y0, ts, rtol, atol, **steps)
        return states, nfe, None, None
    return states, nfe, integrator.iwork[10], integrator.iwork[13]


def func_for(times):
    return f if times[-1] > times[0] else f_backwards


def assert_same(method, times, rtol, atol, **options):
    func = func_for(times)
    states, nfe, steps, order = scipy_solve(method, func, Y0, times, rtol, atol, **options)
    counted = Counted(func)
    with record_solves() as solves:
        got = odeint(lambda t, y, _: counted(t, y), Y0, times, method=method, rtol=rtol, atol=atol, options=options)
    np.testing.assert_array_equal(got, states)
    assert solves[0].nfe == counted.calls == nfe
    assert steps in (None, solves[0].steps)
    assert order in (None, solves[0].last_order)
    return solves[0]


METHODS = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau")


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("which", TIMES)
@pytest.mark.parametrize("method", METHODS)
def test_plain_call(method, which, tol):
    assert_same(method, TIMES[which], tol, tol)


@pytest.mark.parametrize("which", ["increasing", "decreasing"])
@pytest.mark.parametrize(
    "options", [{"first_step": FIRST_STEP}, {"max_step": MAX_STEP}, {"first_step": FIRST_STEP, "max_step": MAX_STEP}], ids=str
)
@pytest.mark.parametrize("method", METHODS)
def test_step_sizes(method, options, which):
    times = TIMES[which]
    if method in ("dopri5", "dop853") and "max_step" in options:
        # SciPy's own forgets max_step in the first step after an inner output time, which ours must not (test_step_options).
        times = times[[0, -1]]
    plain = assert_same(method, times, 1e-6, 1e-6)
    limited = assert_same(method, times, 1e-6, 1e-6, **options)
    assert (limited.nfe, limited.last_step) != (plain.nfe, plain.last_step)


@pytest.mark.parametrize("max_order", [1, 2, MAX_ORDER])
@pytest.mark.parametrize("method", ["adams", "bdf", "lsoda"])
def test_max_order(method, max_order):
    assert assert_same(method, FORWARDS, 1e-4, 1e-4, max_order=max_order).last_order <= max_order


@pytest.mark.parametrize("method", METHODS)
def test_vector_tolerances(method):
    """SciPy's Radau takes a vector atol but a single rtol; the others vectors for both."""
    rtol = 1e-6 if method == "radau" else np.array([1e-4, 1e-7])
    assert_same(method, FORWARDS, rtol, np.array([1e-8, 1e-3]))


@pytest.mark.parametrize("method", ["adams", "bdf", "dopri5", "dop853"])
@pytest.mark.parametrize("rtol, atol", [(1e-6, np.array([1e-8, 1e-3])), (np.array([1e-4, 1e-7]), 1e-6)])
def test_one_tolerance_a_number_the_other_a_vector(method, rtol, atol):
    """A number is the vector of that number, also to the codes that want both of one kind."""
    both = np.broadcast_arrays(rtol, atol)
    assert_same(method, FORWARDS, *map(np.array, both))
    mixed, vectors = (odeint(f, Y0, FORWARDS, method=method, rtol=r, atol=a) for r, a in ((rtol, atol), both))
    np.testing.assert_array_equal(mixed, vectors)


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("which", TIMES)
def test_lsoda_is_scipy_odeint(which, tol):
    """scipy.integrate.odeint, the other door to ODEPACK's LSODA: the one that autograd and the paper used."""
    times = TIMES[which]
    func = func_for(times)
    counted = Counted(func)
    want, info = scipy.integrate.odeint(counted, Y0, times, tfirst=True, full_output=True, rtol=tol, atol=tol, mxstep=NOT_LIMITED)
    with record_solves() as solves:
        got = odeint(func, Y0, times, method="lsoda", rtol=tol, atol=tol)
    np.testing.assert_array_equal(got, want)
    [solve] = solves
    assert (solve.nfe, solve.steps, solve.nje) == (counted.calls, info["nst"][-1], info["nje"][-1])
    assert (solve.last_order, solve.last_step) == (info["nqu"][-1], info["hu"][-1])


def test_default_tolerance_is_the_papers():
    """1.5e-8, which is that of scipy.integrate.odeint (1.49012e-8) rounded."""
    np.testing.assert_array_equal(
        odeint(f, Y0, FORWARDS, method="lsoda"),
        scipy.integrate.odeint(f, Y0, FORWARDS, tfirst=True, args=((),), rtol=1.5e-8, atol=1.5e-8),
    )


@pytest.mark.parametrize("jacobian", [{"with_jacobian": True}, {"lband": 0, "uband": 0}], ids=["finite_difference", "diagonal"])
@pytest.mark.parametrize("method", ["adams", "bdf"])
def test_vode_newton_iterations(method, jacobian):
    states, nfe, integrator = by_ode("vode", f, Y0, FORWARDS, 1e-6, 1e-6, method=method, **jacobian)
    name = "diagonal" if "lband" in jacobian else "finite_difference"
    with record_solves() as solves:
        got = odeint(f, Y0, FORWARDS, method=method, rtol=1e-6, atol=1e-6, options={"jacobian": name})
    np.testing.assert_array_equal(got, states)
    assert (solves[0].nfe, solves[0].nje) == (nfe, integrator.iwork[12])
    assert solves[0].nje > 0


@pytest.mark.parametrize("size", [1, 40, 2001])
@pytest.mark.parametrize("method", ["adams", "dopri5"])
def test_any_size(method, size):
    y0 = np.linspace(0.1, 1.0, size)
    rates = np.linspace(0.5, 2.0, size)
    want, nfe, *_ = scipy_solve(method, lambda t, y: -rates * y**2, y0, np.array([0.0, 3.0]), 1e-6, 1e-6)
    with record_solves() as solves:
        got = odeint(lambda t, y, _: -rates * y**2, y0, [0.0, 3.0], method=method, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got, want)
    assert (solves[0].nfe, solves[0].size) == (nfe, size)


@pytest.mark.parametrize("tol", [1e-3, 1.5e-8])
@pytest.mark.parametrize("which", TIMES)
@pytest.mark.parametrize("options", [{}, {"first_step": FIRST_STEP}], ids=["plain", "first step"])
@pytest.mark.parametrize("method", METHODS)
def test_recording_steps_changes_nothing(method, options, which, tol):
    times = TIMES[which]
    func = func_for(times)

    def solve(steps):
        with record_solves(steps=steps) as solves:
            return odeint(func, Y0, times, method=method, rtol=tol, atol=tol, options=options), solves[0]

    plain_states, plain = solve(False)
    states, recorded = solve(True)
    np.testing.assert_array_equal(states, plain_states)
    for name in ("nfe", "steps", "nje", "last_order", "last_step"):
        assert getattr(recorded, name) == getattr(plain, name), name
    assert plain.t is plain.step_sizes is plain.orders is None
    assert_consistent(recorded, times, options)


def assert_consistent(solve, times, options):
    """The recorded steps tile the interval, in its direction, up to the last output time or past it."""
    t, sizes, orders = np.array(solve.t), np.array(solve.step_sizes), np.array(solve.orders)
    sign = np.sign(times[-1] - times[0])
    assert len(t) == len(sizes) == len(orders) == solve.steps
    assert (sign * sizes > 0).all()
    np.testing.assert_allclose(np.diff(np.append(times[0], t)), sizes, rtol=1e-9, atol=1e-13)
    assert sign * (t[-1] - times[-1]) >= 0
    assert (orders >= 1).all()
    assert (sizes[-1], orders[-1]) == (solve.last_step, solve.last_order)
    if solve.method in ("dopri5", "dop853", "radau"):
        assert t[-1] == times[-1]
    if solve.method in ("dopri5", "dop853"):
        assert np.isin(times[1:], t).all()
    if options and solve.method in ("adams", "bdf", "lsoda"):
        assert abs(sizes[0]) <= options["first_step"]


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_recorded_steps_of_a_fixed_grid(method):
    with record_solves(steps=True) as solves:
        odeint(f, Y0, [0.0, 0.5, 0.8], method=method, options={"step_size": 0.2})
    np.testing.assert_allclose(solves[0].step_sizes, [0.5 / 3] * 3 + [0.15] * 2)
    np.testing.assert_allclose(solves[0].t, [0.5 / 3, 1 / 3, 0.5, 0.65, 0.8])
    assert solves[0].nfe == 5 * {"euler": 1, "midpoint": 2, "rk4": 4}[method]

"""SciPy 1.1.0's integrators as a user of 2018 called them, with what they did beside what they answered."""
import numpy as np
from scipy.integrate import ode, odeint

METHODS = ("vode-adams", "vode-bdf", "lsoda-odeint", "lsoda-ode", "dopri5", "dop853")
# Between two output times; SciPy's own 500 would be too few for some, and no number that suffices changes a step.
MAX_NUM_STEPS = 50000
# Optional outputs in RWORK and IWORK of VODE and ODEPACK, counted from 0.
HU, NST, NFE, NJE, NQU = 10, 10, 11, 12, 13
ORDER = {"dopri5": 5, "dop853": 8}


def solve(method, f, y0, ts, tolerance, diagonal=False, first_step=0.0):
    """(states (T, n) at ts, statistics) of dy/dt = f(y, t), y(ts[0]) = y0, with rtol = atol = tolerance.

    diagonal: ml = mu = 0, for systems that are too large for LSODA's n * n work space. first_step: its size; 0 leaves it to the
    integrator.
    statistics: calls of f, the integrator's own count of evaluations, accepted steps, Jacobians, order and size of the last
    step.
    """
    calls = [0]

    def counted(y, t):
        calls[0] += 1
        return f(y, t)

    run = {"lsoda-odeint": by_odeint, "dopri5": by_dop, "dop853": by_dop}.get(method, by_ode)
    first_step = first_step if ts[-1] > ts[0] else -first_step
    states, statistics = run(method, counted, np.array(y0, np.float64), [float(t) for t in ts], tolerance, diagonal, first_step)
    return states, dict(evaluations=calls[0], **statistics)


def by_odeint(method, f, y0, ts, tolerance, diagonal, first_step):
    """LSODA by scipy.integrate.odeint, all output times in one call."""
    bands = dict(ml=0, mu=0) if diagonal else {}
    states, info = odeint(f, y0, ts, rtol=tolerance, atol=tolerance, mxstep=MAX_NUM_STEPS, h0=first_step,
                          full_output=True, **bands)
    assert info["message"] == "Integration successful.", info["message"]
    return states, dict(nfe=info["nfe"][-1], steps=info["nst"][-1], nje=info["nje"][-1], last_order=info["nqu"][-1],
                        last_step=info["hu"][-1])


def by_ode(method, f, y0, ts, tolerance, diagonal, first_step):
    """VODE or LSODA by scipy.integrate.ode, which goes on from one output time to the next."""
    options = {"vode-adams": dict(method="adams"), "vode-bdf": dict(method="bdf", order=5), "lsoda-ode": {}}[method]
    if diagonal and method == "lsoda-ode":
        options.update(lband=0, uband=0)
    solver = ode(lambda t, y: f(y, t)).set_integrator(method.split("-")[0], rtol=tolerance, atol=tolerance,
                                                      nsteps=MAX_NUM_STEPS, first_step=first_step, **options)
    states = states_of(solver, y0, ts)
    rwork, iwork = solver._integrator.rwork, solver._integrator.iwork
    return states, dict(nfe=iwork[NFE], steps=iwork[NST], nje=iwork[NJE], last_order=iwork[NQU], last_step=rwork[HU])


def by_dop(method, f, y0, ts, tolerance, diagonal, first_step):
    """Hairer's codes by scipy.integrate.ode: one call of the Fortran for each output time."""
    solver = ode(lambda t, y: f(y, t)).set_integrator(method, rtol=tolerance, atol=tolerance, nsteps=MAX_NUM_STEPS,
                                                      first_step=first_step)
    ends = [ts[0]]

    def after_step(t, y):
        # The Fortran also tells the beginning of each call, which is the end of the step before.
        if t != ends[-1]:
            ends.append(t)
        return 0

    solver.set_solout(after_step)
    states = states_of(solver, y0, ts)
    return states, dict(steps=len(ends) - 1, nje=0, last_order=ORDER[method], last_step=ends[-1] - ends[-2])


def states_of(solver, y0, ts):
    """States (T, n) of a scipy.integrate.ode at ts."""
    solver.set_initial_value(y0, ts[0])
    states = [y0]
    for t in ts[1:]:
        states.append(solver.integrate(t).copy())
        assert solver.successful()
    return np.array(states)

"""odeint: the solution of an initial value problem as a differentiable function of y0, t and params."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from .adjoint import augmented_tolerance, reverse_sweep, seminorm_tolerances
from .dynamics import AutogradDynamics, Dynamics, leaf_tuple, num_params, unpack_like
from .integrators import INTEGRATORS, Integrator, Options, RightHandSide, check_options
from .integrators.fixed_grid import FixedGrid, integrate_traced
from .nested import Structure, flatten
from .statistics import SolverError, new_statistics, publish

ADJOINT_ONLY_OPTIONS = ("restart", "norm", "checkpoint")


class Solver(NamedTuple):
    """A method with its tolerances (numbers, or vectors of one number an unknown) and options."""

    method: str
    rtol: object
    atol: object
    options: Options

    @property
    def integrator(self) -> Integrator:
        return INTEGRATORS[self.method]


class Problem(NamedTuple):
    """Everything about a solve that is not differentiated."""

    dynamics: Dynamics
    shape: tuple[int, ...]
    structure: Structure
    solver: Solver
    adjoint_solver: Solver
    warm_restart: bool
    seminorm: bool
    direction: str = "forward"


def odeint(
    func,
    y0,
    t,
    params=(),
    *,
    method="adams",
    rtol=1.5e-8,
    atol=1.5e-8,
    options=None,
    adjoint_method=None,
    adjoint_rtol=None,
    adjoint_atol=None,
    adjoint_options=None,
):
    """Solve dy/dt = func(t, y, params), y(t[0]) = y0, and return y at every t: an array of shape (len(t), *y0.shape).

    Differentiable with autograd with respect to y0, t and params by the adjoint method (Algorithm 2 of the paper, swept over the
    output times as in its appendix D), to any order.

    Parameters
    ----------
    func : function (t, y, params) -> dy/dt in autograd.numpy, or a TensorFlowDynamics. y has the shape of y0 and is a read-only
        view of the integrator's memory (a func that writes into it is given copies instead); func may return the same buffer
        each time.
    y0 : real array of any shape, or a number; computed with in float64.
    t : one or more times, strictly increasing or strictly decreasing; y0 belongs to t[0].
    params : any nesting of lists, tuples and dicts of real arrays. Integers and booleans are passed on without a gradient.
    method : "adams" (VODE, the paper's implicit Adams), "bdf" (VODE), "lsoda" (ODEPACK), "dopri5", "dop853" (Hairer's Fortran),
        "radau" (Radau IIA), or on a fixed grid "euler", "midpoint", "rk4".
    rtol, atol : relative and absolute tolerance, positive; numbers or arrays that broadcast to the shape of y0. The default is
        the paper's for time series (section 6), scipy.integrate.odeint's rounded.
    options : dict of the integrator's own options. "first_step", "max_step" (positive, in units of t); "max_num_steps" between
        two output times (default 50,000); "max_order" (adams 12, bdf 5, lsoda 12); "jacobian" for the implicit methods: None
        (SciPy's default for the integrator), "diagonal", "finite_difference" or "autodiff"; "step_size" for fixed grids (default:
        one step from output to output).
    adjoint_method, adjoint_rtol, adjoint_atol : for the reverse solve; by default those of the forward one. "discrete", with a
        fixed-grid method, backpropagates through the integrator itself instead (RK-Net; memory grows with the steps).
    adjoint_options : dict. "restart": "fresh" (default; each output time begins a new solve, as in the paper) or "warm" (it
        begins with a known step size); "norm": None or "seminorm" (gradients with respect to params and t out of the error
        norm); "checkpoint": K states stored, evenly spaced in time, on the way forward, from which the reverse solve
        reconstructs z(t); and options of the adjoint method, which inherits the forward ones if it is the same method.

    Raises
    ------
    ValueError, TypeError : arguments that make no sense, before any work; func returning something of another shape or kind.
    SolverError : the solve did not reach its end. Exceptions inside func come through unchanged.
    """
    y0 = _checked_state(y0)
    t = _checked_times(t)
    leaves, structure = flatten(params)
    shape = anp.shape(y0)
    solver = Solver(
        _checked_method(method, "method"),
        _checked_tolerance(rtol, shape, "rtol"),
        _checked_tolerance(atol, shape, "atol"),
        check_options(method, INTEGRATORS[method], options),
    )
    discrete = adjoint_method == "discrete"
    if discrete and not isinstance(solver.integrator, FixedGrid):
        raise ValueError(
            f"adjoint_method='discrete' backpropagates through a fixed grid: method must be euler, midpoint or rk4, "
            f"got {method!r}"
        )
    adjoint_solver, special = _checked_adjoint(
        solver, shape, method if discrete else adjoint_method, adjoint_rtol, adjoint_atol, adjoint_options
    )
    problem = Problem(
        _checked_dynamics(func),
        shape,
        structure,
        solver,
        adjoint_solver,
        warm_restart=special["restart"] == "warm",
        seminorm=special["norm"] == "seminorm",
    )
    z0 = anp.reshape(y0, -1)
    if discrete:
        zs = _solve_traced(problem, z0, t, leaves)
    elif special["checkpoint"] and len(t) > 1:
        zs = _solve_with_checkpoints(problem, z0, t, leaves, special["checkpoint"])
    else:
        zs = _odeint(problem, z0, t, *leaves)
    return anp.reshape(zs, (len(t), *shape))


@primitive
def _odeint(problem, z0, t, *leaves):
    """States (T, n) of the flat problem: the primitive that autograd sees."""
    leaves = problem.dynamics.send(leaves)
    rhs = problem.dynamics.bind(problem.shape, problem.structure, leaves)
    return _solve(problem, rhs, z0, t, leaves)[0]


def _odeint_vjp(argnums, zs, args, kwargs):
    problem, z0, t, *leaves = args
    adjoint = _adjoint_problem(problem, leaves)

    def vjp(zs_bar):
        if any(isbox(value) for value in (zs, zs_bar, z0, t, *leaves)):
            f_traced = problem.dynamics.differentiable(problem.shape, problem.structure)

            def f(t_i, z):
                return f_traced(t_i, z, *leaves)

            def solve(s, times):
                return _odeint(adjoint, s, anp.array(times), *leaves)[-1]
        else:
            sent = problem.dynamics.send(leaves)
            f = problem.dynamics.bind(problem.shape, problem.structure, sent)
            solve = _reverse_solver(adjoint, sent)
        z0_bar, t_bar, theta_bar = reverse_sweep(solve, f, t, zs, zs_bar, num_params(leaves))
        bars = [None, z0_bar, t_bar, *unpack_like(theta_bar, leaves)]
        return [_in_dtype_of(args[argnum], bars[argnum]) for argnum in argnums]

    return vjp


defvjp_argnums(_odeint, _odeint_vjp)


def _in_dtype_of(value, bar):
    """bar in the floating-point type of the value that it is the cotangent of."""
    dtype = getattr(value, "dtype", np.float64)
    return bar if dtype == np.float64 else bar.astype(dtype)


def _adjoint_problem(problem, leaves):
    """The augmented system of problem as a problem of its own, whose adjoint is solved by the same means."""
    n, p = math.prod(problem.shape), num_params(leaves)
    means = problem.adjoint_solver
    means = means._replace(rtol=augmented_tolerance(means.rtol, n, p), atol=augmented_tolerance(means.atol, n, p))
    solver = means
    if problem.seminorm:
        rtol, atol = seminorm_tolerances(means.rtol, means.atol, n, p, means.integrator.rms_norm)
        solver = means._replace(rtol=rtol, atol=atol)
    return problem._replace(
        dynamics=problem.dynamics.augmented(problem.shape, problem.structure),
        shape=(2 * n + p + 1,),
        structure=leaf_tuple(leaves),
        solver=solver,
        adjoint_solver=means,
        direction="backward",
    )


def _reverse_solver(adjoint, leaves):
    """solve(s, times) for one reverse sweep: parameters bound once, and the step size kept if restarts are warm."""
    rhs = adjoint.dynamics.bind(adjoint.shape, adjoint.structure, leaves)
    restart_step = None

    def solve(s, times):
        nonlocal restart_step
        problem = adjoint
        if restart_step is not None:
            length = abs(times[1] - times[0])
            options = adjoint.solver.options._replace(first_step=min(restart_step, length))
            problem = adjoint._replace(solver=adjoint.solver._replace(options=options))
        end, statistics = _solve(problem, rhs, s, np.array(times), leaves)
        if adjoint.warm_restart and not isinstance(adjoint.solver.integrator, FixedGrid):
            known = statistics.last_step if adjoint.solver.integrator.restart_from_last_step else statistics.first_step
            restart_step = abs(known)
        return end[-1]

    return solve


def _solve(problem, rhs, z0, t, leaves):
    """(states (T, n), SolveStatistics) of one call of the integrator; a failure comes out as a complete SolverError."""
    solver = problem.solver
    statistics = new_statistics(problem.direction, solver.method, z0.size)
    statistics.wants_first_step = (
        problem.warm_restart and problem.direction == "backward" and not solver.integrator.restart_from_last_step
    )
    z0 = np.ascontiguousarray(z0, dtype=np.float64)
    if len(t) == 1:
        return z0[None].copy(), statistics
    jacobian = _lazy_jacobian(problem, leaves) if solver.options.jacobian == "autodiff" else None
    counted = RightHandSide(rhs, z0.size, jacobian)
    start = time.perf_counter()
    try:
        zs = solver.integrator.solve(
            counted, z0, np.ascontiguousarray(t, dtype=np.float64), solver.rtol, solver.atol, solver.options, statistics
        )
        if not np.isfinite(zs[-1].dot(zs[-1])) and not np.isfinite(zs).all():
            raise SolverError("the integrator returned a state that is not finite", t_reached=counted.last_t)
    except SolverError as error:
        # One that has statistics already comes from a solve inside func, and goes on unchanged.
        if error.statistics is None:
            error.statistics = statistics
            error.t_reached = float(t[0]) if error.t_reached is None else error.t_reached
        raise
    finally:
        statistics.wall_seconds = time.perf_counter() - start
        statistics.nfe = counted.nfe
        publish(statistics)
    return zs, statistics


def _lazy_jacobian(problem, leaves):
    """jacobian(t, z) that is bound at its first call, after the integrator has seen whether a dense matrix fits."""
    bound = None

    def jacobian(t, z):
        nonlocal bound
        if bound is None:
            bound = problem.dynamics.bind_jacobian(problem.shape, problem.structure, leaves)
        return bound(t, z)

    return jacobian


def _solve_traced(problem, z0, t, leaves):
    """Fixed grid with autograd's tape through every step (adjoint_method="discrete")."""
    f_traced = problem.dynamics.differentiable(problem.shape, problem.structure)
    statistics = new_statistics("forward", problem.solver.method, anp.size(z0))
    start = time.perf_counter()

    def f(t_i, z):
        statistics.nfe += 1
        dz = f_traced(t_i, z, *leaves)
        if not np.isfinite(getval(dz)).all():
            raise SolverError("func returned a value that is not finite", float(getval(t_i)), statistics)
        return dz

    try:
        return integrate_traced(problem.solver.method, f, z0, t, problem.solver.options, statistics)
    finally:
        statistics.wall_seconds = time.perf_counter() - start
        publish(statistics)


def _solve_with_checkpoints(problem, z0, t, leaves, count):
    """States at t from a solve that also stores count states between: output times whose cotangent is zero.

    The reverse sweep restarts z(t) from every stored output, so a checkpoint is just one more of them.
    """
    times = getval(t)
    inner = np.linspace(times[0], times[-1], count + 2)[1:-1]
    inner = inner[~np.isin(inner, times)]
    together = anp.concatenate([t, inner])
    order = np.argsort(getval(together), kind="stable")
    if times[-1] < times[0]:
        order = order[::-1]
    zs = _odeint(problem, z0, together[order], *leaves)
    wanted = np.flatnonzero(order < len(times))
    return zs[wanted]


def _checked_dynamics(func):
    if isinstance(func, Dynamics):
        return func
    if not callable(func):
        raise TypeError(f"func must be a function (t, y, params) -> dy/dt or a TensorFlowDynamics, got {type(func).__name__}")
    return AutogradDynamics(func)


def _as_array(value, name):
    try:
        return anp.array(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from error


def _checked_state(y0):
    if not isbox(y0):
        y0 = _as_array(y0, "y0")
    value = np.asarray(getval(y0))
    if value.dtype.kind == "c":
        raise TypeError("y0 must be real; for a complex state pass numpy.stack([y0.real, y0.imag]) and give func the same form")
    if value.dtype.kind not in "fiub":
        raise TypeError(f"y0 must be an array of real numbers, got dtype {value.dtype}")
    if value.size == 0:
        raise ValueError(f"y0 must hold at least one number, got shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"y0 must be finite, got {np.sum(~np.isfinite(value))} entries that are not")
    return y0 if isbox(y0) else y0.astype(np.float64)


def _checked_times(t):
    if not isbox(t):
        t = _as_array(t, "t")
    value = np.asarray(getval(t))
    if value.dtype.kind not in "fiu":
        raise TypeError(f"t must be an array of real numbers, got dtype {value.dtype}")
    if value.ndim != 1 or value.size == 0:
        raise ValueError(f"t must be one-dimensional with at least one time, got shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"t must be finite, got {value[~np.isfinite(value)][0]}")
    differences = np.diff(value.astype(np.float64))
    if not (np.all(differences > 0) or np.all(differences < 0)):
        what = "a repeated time" if np.any(differences == 0) else "times in no order"
        raise ValueError(f"t must be strictly increasing or strictly decreasing, got {what}")
    return t if isbox(t) else t.astype(np.float64)


def _checked_method(method, name):
    if not isinstance(method, str) or method not in INTEGRATORS:
        raise ValueError(f"{name} must be one of {', '.join(INTEGRATORS)}, got {method!r}")
    return method


def _checked_tolerance(value, shape, name):
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a positive number or an array of them, got {value!r}") from None
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if array.ndim == 0:
        return float(array)
    try:
        return np.broadcast_to(array, shape).reshape(-1).copy()
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to that of y0, {shape}") from None


def _checked_adjoint(solver, shape, method, rtol, atol, options):
    """The Solver of the reverse sweep, and its special options as a dict."""
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"adjoint_options must be a dict, got {type(options).__name__}")
    options = dict(options or {})
    special = {
        "restart": options.pop("restart", "fresh"),
        "norm": options.pop("norm", None),
        "checkpoint": options.pop("checkpoint", 0),
    }
    if special["restart"] not in ("fresh", "warm"):
        raise ValueError(f"adjoint_options['restart'] must be 'fresh' or 'warm', got {special['restart']!r}")
    if special["norm"] not in (None, "seminorm"):
        raise ValueError(f"adjoint_options['norm'] must be None or 'seminorm', got {special['norm']!r}")
    checkpoint = special["checkpoint"]
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, (int, np.integer)) or checkpoint < 0:
        raise ValueError(f"adjoint_options['checkpoint'] must be a number of states, 0 or more, got {checkpoint!r}")
    method = solver.method if method is None else _checked_method(method, "adjoint_method")
    integrator = INTEGRATORS[method]
    unknown = [key for key in options if key not in integrator.known_options]
    if unknown:
        raise ValueError(
            f"adjoint_options: unknown {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(ADJOINT_ONLY_OPTIONS + integrator.known_options)}"
        )
    checked = check_options(method, integrator, options, "adjoint_options")
    if method == solver.method:
        checked = solver.options._replace(**{key: getattr(checked, key) for key in options})
    rtol = solver.rtol if rtol is None else _checked_tolerance(rtol, shape, "adjoint_rtol")
    atol = solver.atol if atol is None else _checked_tolerance(atol, shape, "adjoint_atol")
    return Solver(method, rtol, atol, checked), special

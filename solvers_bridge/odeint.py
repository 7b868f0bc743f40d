"""odeint: the solution of an initial value problem as a differentiable function of y0, t and params, for autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defjvp_argnums, defvjp, defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from .adjoint import Augmented, reverse_sweep
from .arguments import check
from .dynamics.autograd import differentiable
from .dynamics.base import Dynamics, leaf_tuple, num_params, unpack_like
from .dynamics.tape import vjp
from .integrators.dop import Dop
from .lost_state import Lost, Watch
from .nested import Layout, bare, is_differentiable
from .reverse import gradient
from .solve import Kept, Warm, adjoint_problem, are_close, at_slope_time, forward, solve_traced, with_stored
from .statistics import SolverError


def odeint(
    func: Callable | Dynamics,
    y0: Any,
    t: Any,
    params: Any = (),
    *,
    method: str = "adams",
    rtol: Any = 1.5e-8,
    atol: Any = 1.5e-8,
    options: dict | None = None,
    adjoint_method: str | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_options: dict | None = None,
) -> Any:
    """Solve dy/dt = func(t, y, params), y(t[0]) = y0, and return y at every t: the nesting of y0, arrays of (len(t), *shape).

    Differentiable with autograd with respect to y0, t and params by the adjoint method (Algorithm 2 of the paper, swept over the
    output times as in its appendix D), to any order; in forward mode, too, by the tangent system.

    Parameters
    ----------
    func : function (t, y, params) -> dy/dt in autograd.numpy, or a TensorFlowDynamics. y is nested and shaped as y0, and a read-
        only view of the integrator's memory (a func that writes into it is given copies instead); func may return the same buffer
        each time.
    y0 : real array of any shape, a number, or a nesting of lists, tuples and dicts of arrays (a list or tuple that holds only
        numbers, at any depth, is one array); computed with in float64.
    t : one or more times, increasing or decreasing; y0 belongs to t[0]. A repeated time repeats its state.
    params : any nesting of lists, tuples and dicts of real arrays. Integers and booleans are passed on without a gradient.
    method : "adams" (VODE, the paper's implicit Adams), "bdf" (VODE), "lsoda" (ODEPACK), "dopri5", "dop853" (Hairer's Fortran),
        "radau" (Radau IIA), or on a fixed grid "euler", "midpoint", "rk4" (the classical one), "rk4_38" (the 3/8 rule).
    rtol, atol : relative and absolute tolerance, positive; numbers, arrays that broadcast to the shape of y0, or both nested like
        it. The default is the paper's for time series (section 6), scipy.integrate.odeint's rounded. atol is at least 1e-150.
    options : dict of the integrator's own options. "first_step", "max_step" (positive, in units of t); "max_num_steps" between
        two output times (default 50,000); "max_order" (adams 12, bdf 5, lsoda 12); "jacobian" for the implicit methods: None
        (SciPy's default for the integrator), "diagonal", "finite_difference", "autodiff", or a function (t, y, params) -> matrix
        (n, n) of the flat state; "bands": (lower, upper) of a banded one; "step_size" for fixed grids (default: one step from
        output to output); "jump_t": times at which func jumps, where the solve restarts; "stay_inside": True if func is never to
        be called outside [t[0], t[-1]]; "progress": True for a line on the terminal where a solve takes longer than a moment.
    adjoint_method, adjoint_rtol, adjoint_atol : for the reverse solve; by default those of the forward one. "discrete"
        backpropagates through the steps of the integrator itself instead: of a fixed grid (RK-Net), and of dopri5 and dop853
        (memory: their stages). Gradients are then those of the steps taken.
    adjoint_options : dict. "reconstruction": "auto" (default), "solve" (the paper's: z(t) is solved backwards with the adjoint;
        memory O(1); a GradientWarning says where that lost z(t)) or "interpolate" (z(t) from the forward solve's interpolant, as
        CVODES has it; memory O(steps)). "auto" solves backwards, and where z(t) was lost between two output times, solves
        forwards again there and takes its interpolant. "checkpoint": K states stored on the way forward, evenly spaced in time
        or, on a fixed grid, in steps, from which z(t) is found anew; with "interpolate", memory is O(K + steps of a segment).
        "restart": "fresh" (default; each output time begins a new solve, as in the paper) or "warm" (it begins with a known step
        size); "norm": None or "seminorm": gradients with respect to params and t out of the error norm, so that z and a are held
        to the tolerances as if solved alone, however many parameters there are. None takes the root mean square of all methods
        but lsoda over the parameters, too, which loosens it for z and a. So a wide network can take more evaluations with
        "seminorm" than with None (adams 25 for 22, radau twice as many), and its gradients with respect to params, whose error
        nothing controls, have two to three times the error. Further, options of the adjoint method, which inherits the forward
        ones if it is the same method.

    Raises
    ------
    ValueError, TypeError : arguments that make no sense, before any work; func returning something of another shape or kind.
    SolverError : the solve did not reach its end. Exceptions inside func come through unchanged.
    """
    problem, y0_leaves, t, leaves, stored = check(
        func, y0, t, params, method, rtol, atol, options, adjoint_method, adjoint_rtol, adjoint_atol, adjoint_options
    )
    y0_leaves, t = [with_its_dtype(leaf, np.float64) for leaf in y0_leaves], with_its_dtype(t, np.float64)
    leaves = [with_its_dtype(leaf) for leaf in leaves]
    z0 = problem.layout.pack(y0_leaves, anp.reshape, anp.concatenate)
    is_differentiated = any(isbox(value) for value in (z0, t, *leaves))
    if is_differentiated:
        from_steps = problem.discrete or (problem.reconstruction == "interpolate" and not len(stored))
        problem = problem._replace(keep=Kept(steps=from_steps))
    try:
        zs = _states(problem, z0, t, leaves, stored)
    except SolverError as error:
        tell_states(error, problem.layout, bare(t))
        raise
    return problem.layout.unpack(zs, anp.reshape, leading=(len(t),))


def _states(problem, z0, t, leaves, stored):
    """States (T, n) at t, solved over the times in stored as well: outputs whose cotangent is zero.

    The reverse sweep restarts z(t) from every stored state, so a checkpoint is just one more of them.
    """
    solve = _solve_traced if problem.discrete and not isinstance(problem.solver.integrator, Dop) else _odeint
    inner, order = with_stored(getval(t), stored)
    if not len(inner):
        return solve(problem, z0, t, *leaves)
    zs = solve(problem, z0, anp.concatenate([t, inner])[order], *leaves)
    return zs[np.flatnonzero(order < len(getval(t)))]


def tell_states(error, layout, t):
    """Leave in a SolverError of the solve of layout those of the times t that were reached, and the states there, like y0."""
    if error.layout is layout and error.ts is not None:
        wanted = np.isin(error.ts, t)
        error.ts, ys = error.ts[wanted], error.ys[wanted]
        error.ys = layout.unpack(ys, np.reshape, leading=(len(ys),))


def with_its_dtype(leaf, dtype=None):
    """leaf, computed with in dtype where one is given; its cotangent comes in its own, whatever traces it in between."""
    own = getattr(bare(leaf), "dtype", None)
    if not isbox(leaf) or own is None or own.kind != "f" or own == np.float64:
        return leaf
    return _cast(leaf, own if dtype is None else dtype)


@primitive
def _cast(x, dtype):
    return np.asarray(x, dtype)


defvjp(_cast, lambda y, x, dtype: lambda bar: _cast(bar, bare(x).dtype), None)
defjvp(_cast, lambda x_dot, y, x, dtype: _cast(x_dot, dtype), None)


@primitive
def _odeint(problem, z0, t, *leaves):
    """States (T, n) of the flat problem: the primitive that autograd sees."""
    return forward(problem, z0, t, leaves)


def _odeint_vjp(argnums, zs, args, kwargs):
    problem, z0, t, *leaves = args

    def pullback(zs_bar):
        wants_t = 2 in argnums
        if any(isbox(value) for value in (zs, zs_bar, z0, t, *leaves)):
            z0_bar, t_bar, theta_bar = _traced_gradient(problem, zs, zs_bar, z0, t, leaves, wants_t)
        else:
            z0_bar, t_bar, theta_bar = gradient(problem, t, zs, zs_bar, leaves, wants_t)
        bars = [None, z0_bar, t_bar, *unpack_like(theta_bar, leaves, anp.reshape)]
        return [bars[argnum] for argnum in argnums]

    return pullback


def _odeint_jvp(argnums, directions, zs, args, kwargs):
    problem, z0, t, *leaves = args
    given = dict(zip(argnums, directions))
    floats = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]
    v = given.get(1, np.zeros(problem.layout.size))
    w = [given.get(3 + i, np.zeros(np.shape(leaves[i]))) for i in floats]
    return _tangent(problem, z0, t, leaves, v, given.get(2), w, zs)


defvjp_argnums(_odeint, _odeint_vjp)
defjvp_argnums(_odeint, _odeint_jvp)


def _tangent(problem, z0, t, leaves, v, t_dot, w, zs):
    """Directional derivative (T, n) of the states zs, along v of z0, t_dot of t (or None) and w of the leaves that are floats."""
    n = problem.layout.size
    if t_dot is not None:
        f = differentiable(problem.dynamics, problem.layout, problem.structure)
        slope = _slopes(problem, f, t, leaves)
        # The state at a moved t0 is still z0: the flow from there is that of a start moved back along f.
        v = v - t_dot[0] * slope(t[0], z0)
    both = tangent_problem(problem, len(leaves) + len(w))
    zs_dot = _odeint(both, anp.concatenate([z0, v]), t, *leaves, *w)[:, n:]
    if t_dot is None:
        return zs_dot
    slopes = anp.stack([slope(t[i], zs[i]) for i in range(len(t))])
    return zs_dot + anp.reshape(t_dot, (-1, 1)) * slopes


def _slopes(problem, f, t, leaves):
    """(t, z) -> f at an output time of t, traced; where func jumps there, on the side of slope_time."""
    times, options = bare(t), problem.solver.options
    return lambda t_i, z: f(at_slope_time(t_i, bare(t_i), times, options), z, *leaves)


def tangent_problem(problem, count):
    """The tangent system [z, v] of problem as a problem of its own, with z and v under the same tolerances."""

    def doubled(solver):
        rtol, atol = (value if np.ndim(value) == 0 else np.concatenate([value, value]) for value in (solver.rtol, solver.atol))
        options = solver.options
        jacobian = "autodiff" if callable(options.jacobian) else options.jacobian
        return solver._replace(rtol=rtol, atol=atol, options=options._replace(jacobian=jacobian, bands=None))

    return problem._replace(
        dynamics=problem.dynamics.tangent(problem.layout, problem.structure),
        layout=Layout.flat(2 * problem.layout.size),
        structure=leaf_tuple(count),
        solver=doubled(problem.solver),
        adjoint_solver=doubled(problem.adjoint_solver),
        discrete=False,
        keep=None,
        warm=None,
    )


def _traced_gradient(problem, zs, zs_bar, z0, t, leaves, wants_t):
    """gradient where autograd traces any of its arguments, for derivatives of derivatives.

    The paper's way is a sweep of reverse solves that are differentiated in their turn. Where z(t) is not found backwards, the
    vector-Jacobian product is one primitive, whose own derivative is that of the tangent system: all of it solved forwards.
    """
    p = num_params(leaves)
    if problem.reconstruction != "interpolate" and not problem.discrete:
        try:
            return _sweep_of_traced_solves(problem, zs, zs_bar, t, leaves, p)
        except (Lost, SolverError):
            if problem.reconstruction == "solve":
                raise
    bars = _pullback(problem, wants_t, zs_bar, z0, t, *leaves)
    n, count = problem.layout.size, len(getval(t))
    return bars[:n], bars[n : n + count], bars[n + count :]


def _sweep_of_traced_solves(problem, zs, zs_bar, t, leaves, p):
    adjoint, augmented = adjoint_problem(problem, leaves), Augmented(problem.layout.size, p)
    f_traced = differentiable(problem.dynamics, problem.layout, problem.structure)
    watch = Watch(problem, traced=True)
    step, is_warm = problem.warm and problem.warm.step, problem.warm_restart and problem.adjoint_solver.integrator.adaptive

    def segment(i, a, theta_bar, t0_bar):
        nonlocal step
        if are_close(bare(t[i]), bare(t[i - 1])):
            return a, theta_bar, t0_bar
        s = augmented.join(zs[i], a, theta_bar, t0_bar, anp)
        warm = Warm(step) if is_warm else None
        s = _odeint(adjoint._replace(warm=warm), s, anp.array((t[i], t[i - 1])), *leaves)[-1]
        step = warm and warm.step
        z, *bars = augmented.split(s)
        watch.check(bare(z), bare(zs[i - 1]), bare(zs[i]), bare(t[i]), bare(t[i - 1]))
        return bars

    def is_zero(a, theta_bar):
        return not (isbox(a) or isbox(theta_bar) or np.any(a) or np.any(theta_bar))

    slope, has_jumps = _slopes(problem, f_traced, t, leaves), bool(problem.solver.options.jump_t)
    bars = reverse_sweep(segment, slope, t, zs, zs_bar, p, is_zero, anp, t0_from_slope=has_jumps)
    watch.tell()
    return bars


@primitive
def _pullback(problem, wants_t, zs_bar, z0, t, *leaves):
    """[z0_bar (n), t_bar (T), theta_bar (P)] of a solve for the cotangent zs_bar (T, n) of its states; wants_t as of gradient."""
    problem = problem._replace(keep=Kept(steps=problem.discrete or problem.reconstruction == "interpolate"))
    zs = forward(problem, z0, t, leaves)
    return np.concatenate(gradient(problem, t, zs, zs_bar, leaves, wants_t))


def _along(problem, zs_bar, z0, t, leaves, v, t_dot, w, wants_t):
    """Cotangents (zs_bar's, z0's, t's, *those of leaves that are floats) of <zs_bar, tangent of the states along v, t_dot, w>.

    That of t is zero unless wanted: f may have no derivative by t.
    """

    def inner(zs_bar, z0, *values):
        values = iter(values)
        times = next(values) if wants_t else t
        every = [next(values) if is_differentiable(leaf) else leaf for leaf in leaves]
        zs = _odeint(problem._replace(keep=None, discrete=False), z0, times, *every)
        return anp.sum(zs_bar * _tangent(problem, z0, times, every, v, t_dot, w, zs))

    floats = [leaf for leaf in leaves if is_differentiable(leaf)]
    _, pullback = vjp(inner, zs_bar, z0, *([t] if wants_t else []), *floats)
    zs_bar_bar, z0_bar, *bars = pullback(1.0)
    return zs_bar_bar, z0_bar, *([] if wants_t else [np.zeros(len(bare(t)))]), *bars


def _pullback_vjp(argnums, bars, args, kwargs):
    problem, wants_t, zs_bar, z0, t, *leaves = args
    n, count = problem.layout.size, len(bare(t))
    floats = [leaf for leaf in leaves if is_differentiable(leaf)]

    def vjp_of_pullback(direction):
        # <pullback(zs_bar), direction> = <zs_bar, tangent(direction)>, whose derivatives are a tangent and its own pullback.
        v, w = direction[:n], unpack_like(direction[n + count :], floats, anp.reshape)
        t_dot = direction[n : n + count] if wants_t else None
        zs_bar_bar, z0_bar, t_bar, *float_bars = _along(problem, zs_bar, z0, t, leaves, v, t_dot, w, 4 in argnums)
        float_bars = iter(float_bars)
        leaf_bars = [next(float_bars) if is_differentiable(leaf) else np.zeros(np.shape(leaf)) for leaf in leaves]
        every = [None, None, zs_bar_bar, z0_bar, t_bar, *leaf_bars]
        return [every[argnum] for argnum in argnums]

    return vjp_of_pullback


def _pullback_jvp(argnums, directions, bars, args, kwargs):
    problem, wants_t, zs_bar, z0, t, *leaves = args
    given = dict(zip(argnums, directions))
    bars_dot = _pullback(problem, wants_t, given[2], z0, t, *leaves) if 2 in given else np.zeros(np.shape(bars))
    if set(given) - {2}:
        # pullback is the gradient of <zs_bar, zs>, so its derivative is symmetric: the gradient of <zs_bar, tangent>.
        w = [given.get(5 + i, np.zeros(np.shape(leaf))) for i, leaf in enumerate(leaves) if is_differentiable(leaf)]
        v, t_dot = given.get(3, np.zeros(problem.layout.size)), given.get(4)
        _, *of_inputs = _along(problem, zs_bar, z0, t, leaves, v, t_dot, w, wants_t)
        bars_dot = bars_dot + anp.concatenate([anp.reshape(bar, (-1,)) for bar in of_inputs])
    return bars_dot


defvjp_argnums(_pullback, _pullback_vjp)
defjvp_argnums(_pullback, _pullback_jvp)


def _solve_traced(problem, z0, t, *leaves):
    """Fixed grid with autograd's tape through every step (adjoint_method="discrete"): memory O(steps)."""
    f = differentiable(problem.dynamics, problem.layout, problem.structure)
    return anp.stack(solve_traced(problem, lambda t_i, z: f(t_i, z, *leaves), z0, t, bare, bare))

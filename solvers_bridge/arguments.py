"""What callers of odeint give, checked before any work: arguments -> Problem. Names the argument and what would be right."""

from __future__ import annotations

import math

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval, isbox

from .dynamics import AutogradDynamics, Dynamics
from .integrators import INTEGRATORS, Integrator, Options
from .integrators.dop import Dop
from .integrators.fixed_grid import FixedGrid, ends_of_steps
from .integrators.quiet import ignore_scipy_warnings
from .nested import LEAF, Layout, bare, flatten, flatten_state
from .solve import CLOSE_TIMES, Problem, Solver, are_close
from .statistics import warn_user

ADJOINT_ONLY_OPTIONS = ("reconstruction", "checkpoint", "restart", "norm")
RECONSTRUCTIONS = ("auto", "solve", "interpolate")
# Squares of tolerances below it vanish, and LSODA's first step with them.
LEAST_ATOL = 1e-150
# Tighter than rounding in float32 lets a reverse solve follow.
TIGHT_FOR_FLOAT32 = 1e-8


def check(func, y0, t, params, method, rtol, atol, options, adjoint_method, adjoint_rtol, adjoint_atol, adjoint_options):
    """(problem, leaves of y0, t, leaves of params, times to store besides t); values that autograd traces stay traced.

    Raises ValueError or TypeError.
    """
    for name, tree in (("y0", y0), ("t", t), ("params", params)):
        _refuse_watched(tree, name)
        _refuse_masked(tree, name)
    for name, tree in (("rtol", rtol), ("atol", atol), ("adjoint_rtol", adjoint_rtol), ("adjoint_atol", adjoint_atol)):
        _refuse_masked(tree, name)
    dynamics = checked_dynamics(func)
    y0_leaves, layout = checked_state(y0)
    t = checked_times(t)
    leaves, structure = flatten(params)
    integrator = checked_method(method, "method")
    solver = Solver(
        integrator,
        checked_tolerance(rtol, layout, "rtol"),
        checked_tolerance(atol, layout, "atol"),
        checked_options(integrator, options),
    )
    discrete = adjoint_method == "discrete"
    if discrete and not isinstance(integrator, (FixedGrid, Dop)):
        raise ValueError(
            "adjoint_method='discrete' backpropagates through the steps of an explicit Runge-Kutta method: method must be "
            f"euler, midpoint, rk4, dopri5 or dop853 (or rk4_38), got {method!r}"
        )
    jumps = solver.options.jump_t
    solver, stored = _jumps_on_the_grid(solver, getval(t), _precision(dynamics))
    reverse_method = method if discrete or adjoint_method is None else adjoint_method
    adjoint_solver, special = _checked_adjoint(solver, jumps, layout, reverse_method, adjoint_rtol, adjoint_atol, adjoint_options)
    if _precision(dynamics) is np.float32:
        _warn_of_tight_tolerances((solver, adjoint_solver))
    problem = Problem(
        dynamics,
        layout,
        structure,
        solver,
        adjoint_solver,
        reconstruction=special["reconstruction"],
        discrete=discrete,
        warm_restart=special["restart"] == "warm",
        seminorm=special["norm"] == "seminorm",
    )
    return problem, y0_leaves, t, leaves, [*stored, *_checkpoints(special["checkpoint"], getval(t), solver, stored)]


def _warn_of_tight_tolerances(solvers):
    for integrator, rtol, atol, _ in solvers:
        if integrator.adaptive and np.min(rtol) <= TIGHT_FOR_FLOAT32 and np.min(atol) <= 10 * TIGHT_FOR_FLOAT32:
            # A filter that came in with the first solve, after this, would make Python forget that it has shown it.
            ignore_scipy_warnings()
            warn_user(
                f"rtol = {np.min(rtol):g} is tighter than float32 dynamics can be integrated to: rounding will cost the reverse "
                "solve many times the evaluations; use dtype='float64' or a looser rtol"
            )
            return


def _refuse_watched(tree, where):
    """TypeError for a tensor whose gradient a GradientTape would lose here without a word."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        for item in tree:
            _refuse_watched(item, where)
    elif type(tree).__module__.partition(".")[0] in ("tensorflow", "keras"):
        import tensorflow as tf

        from .dynamics.tensorflow_call import is_watched

        if is_watched([tf.convert_to_tensor(tree)]):
            raise TypeError(
                f"a GradientTape watches a tensor in {where}, and odeint's gradients are autograd's; "
                "solvers_bridge.tensorflow.odeint takes tensors and is differentiable under the tape"
            )


def _refuse_masked(tree, where):
    """TypeError for a masked array, whose mask would be lost and the numbers under it computed with."""
    tree = bare(tree)
    if isinstance(tree, (dict, list, tuple)):
        for item in tree.values() if isinstance(tree, dict) else tree:
            _refuse_masked(item, where)
    elif isinstance(tree, np.ma.MaskedArray):
        raise TypeError(
            f"{where} must not be or hold a masked array, whose mask would be ignored; give its numbers as a plain array, by "
            "array.filled(value) say"
        )


def _checkpoints(count, times, solver, jumps):
    """As many times between the first and the last: evenly, or on a fixed grid where steps end, with evenly many between them."""
    if not count or len(times) < 2:
        return []
    if solver.integrator.adaptive:
        return np.linspace(times[0], times[-1], count + 2)[1:-1]
    outputs = np.sort(np.concatenate([times, jumps]))
    ends = ends_of_steps(outputs if times[-1] >= times[0] else outputs[::-1], solver.options.step_size)
    ranks = np.linspace(-1, len(ends), count + 2)[1:-1].round().astype(int)
    return ends[np.unique(ranks.clip(0, len(ends) - 1))] if len(ends) else []


def _precision(dynamics):
    """The type of numbers in which func is given t and z."""
    return np.dtype(dynamics.dtype.name).type if hasattr(dynamics, "dtype") else np.float64


def _jumps_on_the_grid(solver, times, time_dtype):
    """solver with jumps between the first time and the last, each at an output time if it is too close to one; and the others."""
    low, high = min(times[0], times[-1]), max(times[0], times[-1])
    sides, stored = {}, []
    for jump in solver.options.jump_t:
        close = [float(time) for time in times if are_close(float(time), jump)]
        if close:
            sides[close[0]] = _around(*sides.get(close[0], ()), jump, *close)
        elif low < jump < high:
            sides[jump] = jump, jump
            stored.append(jump)
    options = solver.options._replace(jump_t=tuple(sides), jump_sides=tuple(sides.values()), time_dtype=time_dtype)
    return solver._replace(options=options), stored


def _around(*times):
    return min(times), max(times)


def checked_dynamics(func):
    """func as Dynamics."""
    if isinstance(func, Dynamics):
        return func
    if not callable(func):
        raise TypeError(f"func must be a function (t, y, params) -> dy/dt or a TensorFlowDynamics, got {type(func).__name__}")
    return AutogradDynamics(func)


def checked_state(y0):
    """(leaves, layout) of y0: float64 arrays, or boxes."""
    leaves, structure = flatten_state(y0)
    if not leaves:
        raise ValueError("y0 must hold at least one number, got a nesting of none")
    several = structure is not LEAF
    leaves = [_checked_array(leaf, f"an array in y0 (number {i})" if several else "y0") for i, leaf in enumerate(leaves)]
    return leaves, Layout.of(leaves, structure)


def _checked_array(leaf, name):
    if not isbox(leaf):
        leaf = _as_array(leaf, name)
    value = np.asarray(getval(leaf))
    if value.dtype.kind == "c":
        raise TypeError(
            f"{name} must be real; for a complex state pass numpy.stack([y0.real, y0.imag]) and give func the same form"
        )
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {value.dtype}")
    if value.size == 0:
        raise ValueError(f"{name} must hold at least one number, got shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got {np.sum(~np.isfinite(value))} entries that are not")
    return leaf if isbox(leaf) else leaf.astype(np.float64)


def _as_array(value, name):
    try:
        return anp.array(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from error


def checked_times(t):
    """t as an array of float64, or a box: increasing or decreasing, with repetitions."""
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
    if not (np.all(differences >= 0) or np.all(differences <= 0)):
        raise ValueError("t must be increasing or decreasing, got times in no order")
    steps = np.abs(differences[differences != 0])
    if len(steps) > 1 and np.median(steps) <= CLOSE_TIMES * np.spacing(np.abs(value).max()):
        raise ValueError(
            f"t has times {np.median(steps):.3g} apart around {value[0]:.6g}, which is too far from zero to tell them apart "
            f"(within {CLOSE_TIMES} units in the last place they count as one): give t - t[0], and add t[0] in func if it uses t"
        )
    return t if isbox(t) else t.astype(np.float64)


def checked_method(method, name) -> Integrator:
    """The integrator of a name."""
    if not isinstance(method, str) or method not in INTEGRATORS:
        raise ValueError(f"{name} must be one of {', '.join(INTEGRATORS)}, got {method!r}")
    return INTEGRATORS[method]


def checked_tolerance(value, layout, name):
    """A tolerance as a float, or as a vector (n,) of one number an unknown."""
    if layout.structure is not LEAF and isinstance(value, (dict, list, tuple)):
        parts = [
            np.broadcast_to(np.asarray(checked_tolerance(part, Layout(LEAF, (shape,)), name)), (math.prod(shape),))
            for part, shape in zip(layout.leaves_of(value, name), layout.shapes)
        ]
        return np.concatenate(parts)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a positive number or an array of them, got {value!r}") from None
    if not (np.isfinite(array).all() and (array > 0).all()):
        zero = (
            "; for none but a relative tolerance take a number far below all that matters, 1e-100 say"
            if name[-4:] == "atol"
            else ""
        )
        raise ValueError(f"{name} must be positive and finite, got {value!r}{zero}")
    if name.endswith("atol") and array.min() < LEAST_ATOL:
        raise ValueError(f"{name} must be at least {LEAST_ATOL:g}, below which squares vanish in the integrators, got {value!r}")
    if array.ndim == 0:
        return float(array)
    if layout.structure is not LEAF:
        raise ValueError(f"{name} must be a number, or numbers and arrays nested like y0, got an array of shape {array.shape}")
    shape = layout.shapes[0]
    try:
        return np.broadcast_to(array, shape).reshape(-1).copy()
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to that of y0, {shape}") from None


def checked_options(integrator, options, name="options"):
    """Options from the user's dict. Raises ValueError or TypeError naming the entry and what would be right."""
    if options is None:
        return Options()
    if not isinstance(options, dict):
        raise TypeError(f"{name} must be a dict, got {type(options).__name__}")
    unknown = [key for key in options if key not in integrator.known_options]
    if unknown:
        raise ValueError(
            f"{name} of method {integrator.name!r}: unknown {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(integrator.known_options)}"
        )
    checked = {
        key: CHECKS[key](value, f"{name}[{key!r}]", integrator)
        for key, value in options.items()
        if value is not None or key == "jacobian"
    }
    bands, jacobian = checked.get("bands"), checked.get("jacobian")
    if bands is not None and (jacobian is None or jacobian == "diagonal"):
        raise ValueError(
            f"{name}['bands'] needs {name}['jacobian'] to be 'finite_difference', 'autodiff' or a function, got {jacobian!r}"
        )
    return Options(**checked)


def _jacobian(value, where, integrator):
    if callable(value) or value is None or (isinstance(value, str) and value in integrator.jacobians):
        return value
    raise ValueError(
        f"{where} must be one of {', '.join(map(repr, integrator.jacobians))} or a function (t, y, params) -> matrix for method "
        f"{integrator.name!r}, got {value!r}"
    )


def _bands(value, where, integrator):
    try:
        lower, upper = (_whole(number, where, least=0) for number in value)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must be (lower, upper), two whole numbers from 0, got {value!r}") from None
    return lower, upper


def _steps(value, where, integrator):
    return _whole(value, where, least=1)


def _order(value, where, integrator):
    return _whole(value, where, least=1, most=integrator.highest_order)


def _whole(value, where, least, most=None):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where} must be an integer, got {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{where} must be at least {least}{f' and at most {most}' if most else ''}, got {value}")
    return int(value)


def _positive(value, where, integrator):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be a positive number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where} must be positive and finite, got {value!r}")
    return number


def _times(value, where, integrator):
    try:
        times = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be an array of times, got {value!r}") from None
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"{where} must be a one-dimensional array of finite times, got {value!r}")
    return tuple(float(time) for time in np.unique(times))


def _flag(value, where, integrator):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{where} must be True or False, got {value!r}")
    return bool(value)


CHECKS = {
    "first_step": _positive,
    "max_step": _positive,
    "step_size": _positive,
    "max_num_steps": _steps,
    "max_order": _order,
    "jacobian": _jacobian,
    "bands": _bands,
    "jump_t": _times,
    "stay_inside": _flag,
    "progress": _flag,
}


def _checked_adjoint(solver, jumps, layout, method, rtol, atol, options):
    """The Solver of the reverse sweep, and its special options as a dict; jumps: times at which the user says that func does."""
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"adjoint_options must be a dict, got {type(options).__name__}")
    options = dict(options or {})
    special = {
        "reconstruction": _one_of(RECONSTRUCTIONS, options.pop("reconstruction", "auto"), "reconstruction"),
        "restart": _one_of(("fresh", "warm"), options.pop("restart", "fresh"), "restart"),
        "norm": _one_of((None, "seminorm"), options.pop("norm", None), "norm"),
        "checkpoint": options.pop("checkpoint", 0),
    }
    checkpoint = special["checkpoint"]
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, (int, np.integer)) or checkpoint < 0:
        raise ValueError(f"adjoint_options['checkpoint'] must be a number of states, 0 or more, got {checkpoint!r}")
    integrator = solver.integrator if method is None else checked_method(method, "adjoint_method")
    unknown = [key for key in options if key not in integrator.known_options]
    if unknown:
        raise ValueError(
            f"adjoint_options: unknown {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(ADJOINT_ONLY_OPTIONS + integrator.known_options)}"
        )
    checked = checked_options(integrator, options, "adjoint_options")
    if set(checked.jump_t) - set(jumps):
        raise ValueError(
            "adjoint_options['jump_t'] must be times of options['jump_t'], where the forward solve restarts as well; "
            f"got {checked.jump_t}"
        )
    if integrator is solver.integrator:
        inherited = solver.options
        # A user's Jacobian is that of func, not that of the augmented system; nor has that one its bands.
        inherited = inherited._replace(jacobian="autodiff" if callable(inherited.jacobian) else inherited.jacobian, bands=None)
        checked = inherited._replace(**{key: getattr(checked, key) for key in options})
    # Where func jumps and where it may be called is a matter of func, whatever the method.
    own = solver.options
    checked = checked._replace(
        jump_t=own.jump_t,
        jump_sides=own.jump_sides,
        time_dtype=own.time_dtype,
        stay_inside=checked.stay_inside or own.stay_inside,
    )
    rtol = solver.rtol if rtol is None else checked_tolerance(rtol, layout, "adjoint_rtol")
    atol = solver.atol if atol is None else checked_tolerance(atol, layout, "adjoint_atol")
    return Solver(integrator, rtol, atol, checked), special


def _one_of(known, value, key):
    if value not in known:
        raise ValueError(f"adjoint_options[{key!r}] must be {' or '.join(map(repr, known))}, got {value!r}")
    return value

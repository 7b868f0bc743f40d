"""torchdiffeq's odeint, odeint_adjoint and odeint_event with the integrators of solvers_bridge: change the import, no more.

func is any function or nn.Module of tensors, evaluated by PyTorch on the device and in the dtype of y0; the integrators work in
float64 on the host. Casting, packing and interpolation are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("solvers_bridge.torch needs PyTorch: pip install 'neural-ode-repro[torch]'") from error

from .arguments import check
from .crossing import LAST_TIME
from .dynamics.torch import TorchDynamics, tensors_used_by, under_present_autocast
from .solve import Kept, solve_traced, with_stored
from .statistics import SolverError
from .torch_arguments import (
    FIXED,
    checked_adjoint_options,
    checked_method,
    checked_options,
    checked_state,
    checked_times,
    checked_tolerance,
    warn_of_callbacks,
)
from .torch_events import Events, first_change, slope_along
from .torch_primitive import FirstDerivatives, Solve, Solved, as_array
from .torch_steps import through_steps

THROUGH_STEPS = (*FIXED, "dopri5", "dop853")


def odeint(
    func: Callable,
    y0: Any,
    t: torch.Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict | None = None,
    event_fn: Callable | None = None,
) -> Any:
    """Solve dy/dt = func(t, y), y(t[0]) = y0: a tensor (len(t), *shape), or a tuple of them, in the dtype of y0.

    torchdiffeq 0.2.5's odeint. Gradients with respect to y0, t and everything that func uses, to any order: through the
    integrator's own steps for dopri5, dop853 and fixed grids, as torchdiffeq's are (memory: the steps), by the adjoint method for
    all other methods, which evaluates func anew: it must not have changed by then, and where a tensor that it used at t[0] was
    changed in place, backward raises RuntimeError.

    Parameters
    ----------
    func : function (t, y) or nn.Module; t is a scalar tensor, y shaped as y0 (a tuple if y0 is one). What it uses is found by
        watching it once, at t[0]; the parameters of an nn.Module count as used. Where it uses another tensor later, the adjoint
        method's backward raises ValueError: such tensors have to be given to odeint_adjoint as adjoint_params. It may write into
        its arguments. Where it uses both a tensor and one that was made of it, each derivative of func goes back through the
        making, too: let func do that, or use one of them, if it is dear.
    y0 : a tensor of float32 or float64, or a tuple of them on one device.
    t : strictly increasing or decreasing floating-point tensor.
    rtol, atol : numbers or tensors, or tuples of one for each tensor of y0.
    method : "dopri5" (default), "euler", "midpoint", "rk4" (torchdiffeq's: the 3/8 rule), and ours: "adams", "bdf", "lsoda",
        "dop853", "radau", "rk4_classic". Another of torchdiffeq's is an error that names the nearest.
    options : dict. "first_step", "max_step", "max_num_steps" (default 50,000 between output times), "jump_t", and the others that
        solvers_bridge.odeint knows; on fixed grids "step_size", "grid_constructor", "interp" ("linear" or "cubic") and
        "perturb", as in torchdiffeq. "norm" is refused: the integrators have their own.
    event_fn : function (t, y) -> tensor; with it, t must hold two times, the start and one that tells the direction, and
        (t_event, y) comes back, where y holds y0 and the state at the first time at which an entry of event_fn changes sign. An
        entry that is zero at the start, within what the tolerances leave open, has the sign with which it leaves zero. t_event
        is known without a gradient: see odeint_event.

    Raises TypeError or ValueError for arguments that make no sense, SolverError where the solve does not reach its end.
    """
    name = checked_method(method, "method")
    warn_of_callbacks(func, name)
    asked = _Asked(func, y0, rtol, atol, name, options, finds_params=True)
    times = checked_times(t, asked.state)
    params = asked.tensors_used(times.detach()) if torch.is_grad_enabled() else ()
    return asked.answer(t, times, event_fn, params, {"adjoint_method": "discrete" if name in THROUGH_STEPS else None})


def odeint_adjoint(
    func: Callable,
    y0: Any,
    t: torch.Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict | None = None,
    event_fn: Callable | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: dict | None = None,
    adjoint_params: Any = None,
) -> Any:
    """odeint with gradients by the adjoint method, with respect to y0, t and adjoint_params: torchdiffeq 0.2.5's odeint_adjoint.

    Parameters
    ----------
    func, y0, t, rtol, atol, method, options, event_fn : as for odeint; func must be an nn.Module unless adjoint_params is
        given.
    adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options : of the reverse solve; by default those of the forward one.
        adjoint_options takes "norm": "seminorm", and what solvers_bridge.odeint's does: "reconstruction", "checkpoint",
        "restart".
        The states on a fixed grid are kept, and the reverse solve begins anew at each of them.
    adjoint_params : tensors for which gradients are wanted; by default the parameters of func.

    Differentiable to any order; but where z(t) is lost on the way back, derivatives of derivatives with respect to t raise
    NotImplementedError, and with "interpolate" those with respect to t solve z(t) backwards. func is evaluated anew in backward
    and must not have changed by then; where one of adjoint_params was changed in place, backward raises RuntimeError.
    """
    if adjoint_params is None and not isinstance(func, torch.nn.Module):
        raise ValueError(
            "func must be an instance of nn.Module to specify the adjoint parameters; alternatively they can be specified "
            "explicitly via the `adjoint_params` argument. If there are no parameters then it is allowable to set "
            "`adjoint_params=()`."
        )
    if adjoint_method not in (None, method) and options is not None and adjoint_options is None:
        raise ValueError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`. So as `options` has been "
            "passed then `adjoint_options` must be passed as well."
        )
    name = checked_method(method, "method")
    back = name if adjoint_method is None else checked_method(adjoint_method, "adjoint_method")
    warn_of_callbacks(func, name)
    asked = _Asked(func, y0, rtol, atol, name, options)
    params = func.parameters() if isinstance(func, torch.nn.Module) and adjoint_params is None else adjoint_params
    adjoint = {
        "adjoint_method": None if back == name else back,
        "adjoint_rtol": checked_tolerance(adjoint_rtol, asked.state, "adjoint_rtol"),
        "adjoint_atol": checked_tolerance(adjoint_atol, asked.state, "adjoint_atol"),
        "adjoint_options": checked_adjoint_options(adjoint_options, back),
    }
    # One that is given twice has one gradient.
    once = {id(param): param for param in params if param.requires_grad}
    return asked.answer(t, checked_times(t, asked.state), event_fn, tuple(once.values()), adjoint)


def odeint_event(
    func: Callable,
    y0: Any,
    t0: torch.Tensor,
    *,
    event_fn: Callable,
    reverse_time: bool = False,
    odeint_interface: Callable = odeint,
    **kwargs: Any,
) -> tuple[torch.Tensor, Any]:
    """(t_event, y): the first time after t0 at which an entry of event_fn changes sign; y0 and the state there. Differentiable.

    torchdiffeq 0.2.5's odeint_event. The event's time has the derivatives of the implicit function theorem (Chen, Amos and Nickel
    2021, equation 7), with respect to y0, t0, what func uses and what event_fn uses.

    Parameters
    ----------
    t0 : a tensor of one number. reverse_time : whether time runs backwards. event_fn, func, y0 : as for odeint.
    odeint_interface : odeint or odeint_adjoint of this module, or what hands event_fn on to them; kwargs are its own.

    Raises SolverError where nothing is crossed within max_num_steps steps; RuntimeError for second derivatives, which it has not;
    ValueError where a gradient is asked for and event_fn has no slope along the solution; TypeError for booleans.
    """
    t0 = t0.reshape(-1)
    t = torch.cat([t0, t0.detach() + (-1.0 if reverse_time else 1.0)])
    events = Events(event_fn)
    event_t, solution = odeint_interface(func, y0, t, event_fn=events, **kwargs)
    _, state = checked_state(y0)
    parts = solution if state.is_tuple else (solution,)
    flat = torch.cat([part[-1].reshape(-1) for part in parts])
    time = event_t.detach().to(state.dtype)
    value = events.first_of(time, state.unpack(flat))
    slope, f = slope_along(_flat_function(func, state), events, time, flat.detach(), state)
    if slope == 0 or not torch.isfinite(slope):
        if any(tensor.requires_grad for tensor in (value, flat, t0)):
            raise ValueError(
                f"event_fn has no derivative at its crossing at t = {float(event_t):.6g}: along the solution its slope there is "
                f"{float(slope)!r}"
            )
        return event_t, solution
    # value is zero, but for rounding: what follows changes no number, and gives them their derivatives.
    shift = -(value - value.detach()) / slope
    event_t = FirstDerivatives.apply(event_t.detach() + shift.to(event_t.dtype))
    last = state.unpack(FirstDerivatives.apply(flat + shift * f))
    ends = last if state.is_tuple else (last,)
    solution = tuple(torch.cat([part[:-1], end[None]]) for part, end in zip(parts, ends))
    return event_t, solution if state.is_tuple else solution[0]


def _flat_function(func, state):
    """func on flat states: (t, z (n,)) -> (n,)."""

    def flat(t, z):
        dy = func(t, state.unpack(z))
        parts = dy if state.is_tuple else (dy,)
        if not isinstance(parts, (tuple, list)) or len(parts) != len(state.shapes):
            raise TypeError(f"func must return a tuple of {len(state.shapes)} tensors, as y0 is, got {type(dy).__name__}")
        for part, shape in zip(parts, state.shapes):
            if not isinstance(part, torch.Tensor):
                raise TypeError(f"func must return dy/dt, a tensor of shape {tuple(shape)}, got {type(part).__name__}")
            if part.is_complex():
                raise TypeError(f"func must return real numbers, got dtype {part.dtype}")
            if part.shape != shape:
                raise ValueError(f"func must return a tensor of the shape of y, {tuple(shape)}, got {tuple(part.shape)}")
        return torch.cat([part.reshape(-1) for part in parts]) if len(parts) > 1 else parts[0].reshape(-1)

    return flat


class _Asked:
    """A solve that was asked for: func, the flat start z0 and its State, tolerances, our name of the method and its options.

    finds_params: whether params are all that func was found to use, so that another is an error.
    """

    def __init__(self, func, y0, rtol, atol, method, options, finds_params=False):
        self.finds_params, self.constants = finds_params, []
        self.z0, self.state = checked_state(y0)
        state = self.state
        self.func, self.method = func, method
        self.flat = under_present_autocast(_flat_function(func, state), state.device)
        self.options, self.grid = checked_options(options, method)
        self.tolerances = {
            "rtol": checked_tolerance(rtol, state, "rtol"),
            "atol": checked_tolerance(atol, state, "atol"),
        }

    def tensors_used(self, t):
        """What func uses that needs a gradient, at the first of times t."""
        start = t[0].to(self.state.dtype)
        if self.grid is not None and self.grid.perturb:
            start = torch.nextafter(start, t[-1].to(start))
        # Copies, into which func may write.
        used, self.constants = tensors_used_by(self.flat, start.clone(), self.z0.detach().clone())
        of_module = self.func.parameters() if isinstance(self.func, torch.nn.Module) else ()
        known = {id(tensor) for tensor in used}
        return used + [param for param in of_module if param.requires_grad and id(param) not in known]

    def answer(self, t, times, event_fn, params, adjoint):
        """What odeint returns at t (times: in float64, on the device), with gradients by the means in adjoint."""
        if event_fn is None:
            return self.state.unpack(self._states(times, params, adjoint).to(self.state.dtype), (len(t),))
        if len(t) != 2:
            raise ValueError(f"We require len(t) == 2 when in event handling mode, but got len(t)={len(t)}.")
        event_t = self._crossing(times, event_fn)
        times = torch.stack([times[0], torch.tensor(event_t, dtype=torch.float64, device=times.device)])
        states = self._states(times, params, adjoint) if event_t != times[0] else torch.stack([self.z0, self.z0])
        return times[1].to(t.dtype), self.state.unpack(states.to(self.state.dtype), (2,))

    def _states(self, t, params, adjoint):
        """States (T, n) in float64 at t (T,)."""
        if self.grid is None:
            return self._solve(t, params, adjoint)
        times = self._grid_of(t)
        states = self._solve(times, params, adjoint, perturbed=times if self.grid.perturb else ())
        return states if times is t else self._interpolated(t, times, states)

    def _grid_of(self, t):
        """torchdiffeq's grid: steps of step_size from t[0], the last one shorter; t itself where nothing was said."""
        if self.grid.constructor is not None:
            times = self.grid.constructor(self.func, self.state.unpack(self.z0.clone()), t.clone()).to(t)
            if times[0] != t[0] or times[-1] != t[-1]:
                raise ValueError("grid_constructor must return times from t[0] to t[-1]")
            return times
        if self.grid.step_size is None or len(t) == 1:
            return t
        span = float((t[-1] - t[0]).detach())
        count = max(1, int(np.ceil(abs(span) / self.grid.step_size * (1 - 1e-12))))
        inner = t[0] + np.copysign(self.grid.step_size, span) * torch.arange(count, dtype=t.dtype, device=t.device)
        return torch.cat([inner, t[-1:]])

    def _interpolated(self, t, times, states):
        """States at t from those on the grid, linearly or by Hermite's cubic."""
        backwards = bool(times[-1] < times[0])
        ordered = -times.detach() if backwards else times.detach()
        wanted = -t.detach() if backwards else t.detach()
        right = torch.searchsorted(ordered, wanted).clamp(1, len(times) - 1)
        h = times[right] - times[right - 1]
        s = ((t - times[right - 1]) / h)[:, None]
        y, y_next = states[right - 1], states[right]
        if self.grid.interp == "linear":
            return y + s * (y_next - y)
        dtype = self.state.dtype

        def slopes(numbers):
            # Copies, into which func may write.
            ends = [(times[i].to(dtype, copy=True), states[i].to(dtype, copy=True)) for i in numbers.tolist()]
            return torch.stack([self.flat(*end) for end in ends])

        f, f_next = h[:, None] * slopes(right - 1), h[:, None] * slopes(right)
        rise = y_next - y
        return y + s * (f + s * (3 * rise - 2 * f - f_next + s * (f + f_next - 2 * rise)))

    def _problem(self, t, params, adjoint, perturbed=()):
        """(problem, stand-ins for params, times to be stored besides t)."""
        options = dict(self.options)
        if len(perturbed):
            options["jump_t"] = [*options.get("jump_t", ()), *perturbed.detach().cpu().tolist()]
        dynamics = TorchDynamics(self.flat, params, self.state.dtype, self.state.device, t.requires_grad, self.finds_params)
        # Their shapes are all that is asked of them.
        leaves = [np.broadcast_to(0.0, tuple(param.shape)) for param in params]
        problem, _, _, leaves, stored = check(
            dynamics,
            as_array(self.z0),
            as_array(t),
            leaves,
            **{"method": self.method, "options": options, **self.tolerances},
            **{"adjoint_method": None, "adjoint_rtol": None, "adjoint_atol": None, "adjoint_options": None, **adjoint},
        )
        return problem, leaves, stored

    def _solve(self, t, params, adjoint, perturbed=()):
        """States (T, n) in float64 at the times t, with their place in PyTorch's graph."""
        is_differentiated = torch.is_grad_enabled() and any(value.requires_grad for value in (self.z0, t, *params))
        params = tuple(params) if is_differentiated else ()
        problem, leaves, stored = self._problem(t, params, adjoint, perturbed)
        inner, order = with_stored(as_array(t), stored)
        times = torch.cat([t, torch.as_tensor(inner, dtype=t.dtype, device=t.device)])[order] if len(inner) else t
        z0 = self.z0.to(torch.float64)
        try:
            if problem.discrete and self.grid is not None:
                # Perturbed times are those of the grid, whatever they are moved to.
                constant = None if len(perturbed) else torch.Tensor.detach
                zs = torch.stack(solve_traced(problem, problem.dynamics.traced, z0, times, as_array, constant))
            elif problem.discrete and is_differentiated:
                zs = through_steps(problem, z0, times)
            else:
                if is_differentiated:
                    from_steps = problem.reconstruction == "interpolate" and not len(inner)
                    problem = problem._replace(keep=Kept(steps=from_steps))
                zs = Solve.apply(Solved(problem, leaves, params, tuple(self.constants)), z0, times, *params)
        except SolverError as error:
            _tell_states(error, problem.layout, self.state, t)
            raise
        return zs[np.flatnonzero(order < len(t))] if len(inner) else zs

    def _crossing(self, t, event_fn):
        """The time of the first change of a sign of event_fn."""
        if self.grid is not None and self.grid.step_size is None:
            raise ValueError(f"method {self.method!r} needs options['step_size'] to look for an event")
        with torch.no_grad():
            problem, leaves, _ = self._problem(t.detach(), (), {})
        if self.grid is not None:
            options = problem.solver.options._replace(step_size=self.grid.step_size)
            problem = problem._replace(solver=problem.solver._replace(options=options))
        last = LAST_TIME if t[1] > t[0] else -LAST_TIME
        try:
            return first_change(problem, self.state, as_array(self.z0), leaves, event_fn, float(t[0].detach()), last)
        except SolverError as error:
            _tell_states(error, problem.layout, self.state, t[:1])
            raise


def _tell_states(error, layout, state, t):
    """Leave in a SolverError of the solve of layout the times asked for that were reached, and the states there, shaped as y."""
    if error.layout is layout and error.ts is not None:
        wanted = np.isin(error.ts, as_array(t))
        error.ts, ys = error.ts[wanted], torch.as_tensor(error.ys[wanted], dtype=state.dtype)
        error.ys = state.unpack(ys, (len(ys),))

"""What callers of solvers_bridge.torch give, in torchdiffeq's words, checked and put into solvers_bridge's."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch

FIXED = ("euler", "midpoint", "rk4", "rk4_38")
# Names here -> those of solvers_bridge.odeint: the same, but that rk4 is torchdiffeq's, the 3/8 rule.
METHODS = {
    **{name: name for name in ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau", "euler", "midpoint")},
    "rk4": "rk4_38",
    "rk4_classic": "rk4",
}
# torchdiffeq's methods that are none of ours, and the nearest that is.
NEAREST = {
    "dopri8": "dop853",
    "tsit5": "dopri5",
    "bosh3": "dopri5",
    "fehlberg2": "dopri5",
    "adaptive_heun": "dopri5",
    "heun2": "midpoint",
    "heun3": "rk4",
    "explicit_adams": "adams",
    "implicit_adams": "adams",
    "fixed_adams": "adams",
    "implicit_euler": "bdf",
    "implicit_midpoint": "radau",
    "trapezoid": "bdf",
    "radauIIA3": "radau",
    "radauIIA5": "radau",
    "gl4": "radau",
    "gl6": "radau",
    "sdirk2": "bdf",
    "trbdf2": "bdf",
    "scipy_solver": "lsoda",
}
CALLBACKS = tuple(f"callback_{name}{way}" for name in ("step", "accept_step", "reject_step") for way in ("", "_adjoint"))


class State(NamedTuple):
    """How the state is shaped: shapes of a tuple's tensors, or of the one tensor; its dtype and device."""

    shapes: tuple[torch.Size, ...]
    is_tuple: bool
    dtype: torch.dtype
    device: torch.device

    def unpack(self, flat, leading=()):
        """The tensor or the tuple of tensors of flat (*leading, n)."""
        parts, start = [], 0
        for shape in self.shapes:
            # No split: into what it returns nobody may write.
            parts.append(flat.narrow(-1, start, shape.numel()).reshape((*leading, *shape)))
            start += shape.numel()
        return tuple(parts) if self.is_tuple else parts[0]


def checked_state(y0):
    """(y0 as one flat tensor, its State)."""
    is_tuple = not isinstance(y0, torch.Tensor)
    parts = y0 if is_tuple else (y0,)
    if not isinstance(parts, tuple) or not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        raise TypeError(f"y0 must be a tensor or a tuple of tensors, got {type(y0).__name__}")
    for i, part in enumerate(parts):
        name = f"y0[{i}]" if is_tuple else "y0"
        if part.is_complex():
            raise TypeError(
                f"{name} must be real, got {part.dtype}; pass torch.view_as_real(y0) and give func the same form, by "
                "torch.view_as_complex inside"
            )
        if part.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be of dtype float32 or float64, got {part.dtype}")
        _refuse_transformed(part, name)
        if part.device != parts[0].device:
            raise ValueError(f"{name} must be on the device of y0[0], {parts[0].device}, got {part.device}")
    flat = torch.cat([part.reshape(-1) for part in parts]) if is_tuple else y0.reshape(-1)
    return flat, State(tuple(part.shape for part in parts), is_tuple, flat.dtype, flat.device)


def _refuse_transformed(tensor, name):
    """TypeError for what stands for a tensor inside a transform of torch.func, and has no numbers for Fortran."""
    try:
        tensor.data_ptr()
    except RuntimeError as error:
        raise TypeError(
            f"{name} is transformed by torch.func (grad, vmap, jvp) or its like, where nobody can read its numbers; use "
            "torch.autograd.grad, and a batch as a dimension of y0"
        ) from error


def checked_times(t, state):
    """t (T,) in float64 on the device of the state."""
    if not isinstance(t, torch.Tensor) or not t.is_floating_point():
        got = t.dtype if isinstance(t, torch.Tensor) else type(t).__name__
        raise TypeError(f"t must be a floating-point tensor, got {got}")
    if t.ndim != 1 or t.numel() == 0:
        raise ValueError(f"t must be one-dimensional with at least one time, got shape {tuple(t.shape)}")
    _refuse_transformed(t, "t")
    steps = t.detach().diff()
    if not (torch.all(steps > 0) or torch.all(steps < 0)):
        raise ValueError("t must be strictly increasing or decreasing")
    if t.device != state.device:
        warnings.warn("t is not on the same device as y0. Coercing to y0.device.", stacklevel=4)
    return t.to(state.device, torch.float64)


def checked_method(method, name):
    """Our name of a method."""
    if method is None:
        return "dopri5"
    if isinstance(method, str) and method in NEAREST:
        raise ValueError(
            f"{name} {method!r} is not among the integrators here, which are {', '.join(METHODS)}; nearest to it is "
            f"{NEAREST[method]!r}"
        )
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"{name} must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]


def checked_tolerance(value, state, name):
    """A number, or an array (n,) with one number an unknown, of a number, a tensor, or one of them for each of a tuple's."""
    if isinstance(value, torch.Tensor) and value.requires_grad:
        raise ValueError(f"{name} must not require a gradient")
    if isinstance(value, (tuple, list)) or (isinstance(value, torch.Tensor) and value.ndim == 1 and state.is_tuple):
        if not state.is_tuple or len(value) != len(state.shapes):
            raise ValueError(f"{name} must be a number, or a tuple of as many as y0 has tensors, got {value!r}")
        parts = [np.broadcast_to(_array(part), tuple(shape)) for part, shape in zip(value, state.shapes)]
        return np.concatenate([part.reshape(-1) for part in parts])
    if value is None:
        return None
    array = _array(value)
    if array.ndim == 0:
        return float(array)
    try:
        return np.broadcast_to(array, tuple(state.shapes[0])).reshape(-1).copy()
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to that of y0") from None


def _array(value):
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)


class Grid(NamedTuple):
    """Where a method on a fixed grid takes its steps, in torchdiffeq's words."""

    step_size: float | None = None
    constructor: object = None
    interp: str = "linear"
    perturb: bool = False


def checked_options(options, method, name="options"):
    """(our options, Grid or None) of torchdiffeq's dict; what is left unknown is refused by solvers_bridge itself."""
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"{name} must be a dict, got {type(options).__name__}")
    options = {key: _plain(value) for key, value in (options or {}).items()}
    norm = options.pop("norm", None)
    if norm is not None and method not in FIXED:
        _refuse_norm(name)
    if callable(options.get("jacobian")):
        raise TypeError(f"{name}['jacobian'] must be 'diagonal', 'finite_difference' or 'autodiff' here: func is PyTorch's")
    max_step = options.get("max_step")
    if max_step is not None and math.isinf(max_step):
        del options["max_step"]
    if options.get("min_step") == 0:
        del options["min_step"]
    if method not in FIXED:
        return options, None
    grid = Grid(
        options.pop("step_size", None),
        options.pop("grid_constructor", None),
        options.pop("interp", "linear"),
        options.pop("perturb", False),
    )
    if grid.step_size is not None and grid.constructor is not None:
        raise ValueError(f"{name}: step_size and grid_constructor exclude each other")
    if grid.step_size is not None and not (isinstance(grid.step_size, (int, float)) and grid.step_size > 0):
        raise ValueError(f"{name}['step_size'] must be positive, got {grid.step_size!r}")
    if grid.interp not in ("linear", "cubic"):
        raise ValueError(f"{name}['interp'] must be 'linear' or 'cubic', got {grid.interp!r}")
    return options, grid


def _refuse_norm(name):
    raise ValueError(
        f"{name}['norm']: the error norm of these integrators, a weighted root mean square over all unknowns, is part of their "
        "Fortran; weigh components by rtol and atol instead, and leave parameters out of the reverse solve's norm by "
        "adjoint_options={'norm': 'seminorm'}"
    )


def _plain(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to(torch.float64).numpy()
        return float(value) if value.ndim == 0 else value
    return value


def checked_adjoint_options(options, method):
    """Our adjoint_options of torchdiffeq's."""
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"adjoint_options must be a dict, got {type(options).__name__}")
    options = {key: _plain(value) for key, value in (options or {}).items()}
    norm = options.pop("norm", None)
    if norm is not None and norm != "seminorm" and method not in FIXED:
        _refuse_norm("adjoint_options")
    if norm == "seminorm" and method not in FIXED:
        options["norm"] = "seminorm"
    for name in ("grid_constructor", "interp", "perturb"):
        # The steps back are those of the grid on which the states are known.
        options.pop(name, None)
    return options


def warn_of_callbacks(func, method):
    """torchdiffeq's warning of callbacks that a solver does not call: here none does."""
    unused = {name for name in CALLBACKS if callable(getattr(func, name, None))}
    if unused:
        warnings.warn(
            f"Solver {method!r} does not support callbacks {unused}; record_solves(steps=True) records every step",
            stacklevel=4,
        )

"""PyTorch's primitives: the solve, on flat float64 tensors, differentiable to any order, and an identity differentiable once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .adjoint import Augmented, reverse_sweep
from .dynamics.base import num_params, unpack_like
from .reverse import gradient
from .solve import Problem, adjoint_problem, are_close, at_slope_time, forward


def as_array(tensor):
    """A tensor, or a number, in NumPy's float64."""
    return tensor.detach().to("cpu", torch.float64).numpy() if isinstance(tensor, torch.Tensor) else np.float64(tensor)


class Solved(NamedTuple):
    """A problem with the tensors its func uses, and their stand-ins; constants are those without a gradient, as far as known."""

    problem: Problem
    leaves: list
    params: tuple
    constants: tuple = ()


class Solve(torch.autograd.Function):
    """States (T, n) of a problem for (z0 (n,), t (T,), *params): the primitive that PyTorch sees."""

    @staticmethod
    def forward(ctx, solved, z0, t, *params):
        zs = forward(solved.problem, as_array(z0), as_array(t), solved.leaves)
        zs = torch.as_tensor(zs, device=z0.device)
        ctx.solved = solved
        # What func uses too, so that PyTorch notices if it was changed in place.
        ctx.save_for_backward(t, zs, *params, *solved.constants)
        return zs

    @staticmethod
    def backward(ctx, zs_bar):
        solved = ctx.solved
        t, zs, *params = ctx.saved_tensors[: 2 + len(solved.params)]
        if torch.is_grad_enabled():
            z0_bar, t_bar, theta_bar = _traced_gradient(solved, t, zs, zs_bar)
        else:
            wants_t = ctx.needs_input_grad[2]
            bars = gradient(solved.problem, as_array(t), as_array(zs), as_array(zs_bar), solved.leaves, wants_t)
            z0_bar, t_bar, theta_bar = (torch.as_tensor(np.asarray(bar), device=zs.device) for bar in bars)
        parts = unpack_like(theta_bar, solved.leaves, torch.reshape)
        bars = [part.to(param.device, param.dtype) for part, param in zip(parts, params)]
        return None, z0_bar, t_bar, *bars


def _traced_gradient(solved, t, zs, zs_bar):
    """gradient in PyTorch's graph, for derivatives of derivatives: a sweep of reverse solves that are differentiated in turn."""
    problem, leaves, params, constants = solved
    dynamics, augmented = problem.dynamics, Augmented(problem.layout.size, num_params(leaves))
    adjoint = adjoint_problem(problem._replace(discrete=False, reconstruction="solve", warm_restart=False), leaves)
    times = as_array(t)

    def segment(i, a, theta_bar, t0_bar):
        if are_close(times[i], times[i - 1]):
            return a, theta_bar, t0_bar
        s = torch.cat([zs[i], a, torch.as_tensor(theta_bar).to(a), torch.as_tensor(t0_bar).to(a).reshape(1)])
        s = Solve.apply(Solved(adjoint, leaves, params, constants), s, torch.stack([t[i], t[i - 1]]), *params)[-1]
        return augmented.split(s)[1:]

    def slope(t_i, z):
        return dynamics.traced(at_slope_time(t_i, float(t_i.detach()), times, problem.solver.options), z)

    from_slope = problem.discrete or bool(problem.solver.options.jump_t)
    bars = reverse_sweep(segment, slope, t, zs, zs_bar, augmented.p, lambda a, theta_bar: False, _Torch, t0_from_slope=from_slope)
    return bars[0], bars[1], torch.as_tensor(bars[2]).to(zs)


class _Torch:
    """The functions of an array namespace that reverse_sweep asks for."""

    dot = staticmethod(torch.dot)

    @staticmethod
    def array(values):
        return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values])


class FirstDerivatives(torch.autograd.Function):
    """The identity, whose derivative cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, bar):
        return _NotTwice.apply(bar, *ctx.saved_tensors)


class _NotTwice(torch.autograd.Function):
    """bar, as if it depended on x, with an error for a derivative."""

    @staticmethod
    def forward(ctx, bar, x):
        return bar.clone()

    @staticmethod
    def backward(ctx, bar):
        raise RuntimeError("odeint_event has first derivatives only; solvers_bridge.odeint_event has them to any order")

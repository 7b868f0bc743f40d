"""PyTorch's primitives: the solve, on flat float64 tensors, differentiable to any order, and an identity differentiable once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .adjoint import Augmented, reverse_sweep
from .dynamics.base import num_params, unpack_like
from .lost_state import Lost, Watch
from .odeint import tangent_problem
from .reverse import gradient
from .solve import Problem, Warm, adjoint_problem, are_close, at_slope_time, forward
from .statistics import SolverError


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
        ctx.save_for_backward(z0, t, zs, *params, *solved.constants)
        return zs

    @staticmethod
    def backward(ctx, zs_bar):
        solved = ctx.solved
        z0, t, zs, *params = ctx.saved_tensors[: 3 + len(solved.params)]
        z0_bar, t_bar, theta_bar = _vjp(solved, z0, t, zs, zs_bar, ctx.needs_input_grad[2])
        return None, z0_bar, t_bar, *_like_params(theta_bar, solved.leaves, params)


def _vjp(solved, z0, t, zs, zs_bar, wants_t):
    """Cotangents (z0_bar (n,), t_bar (T,), theta_bar (P,)) of a solve, given that of its states; traced where PyTorch does."""
    if torch.is_grad_enabled():
        return _traced_gradient(solved, z0, t, zs, zs_bar, wants_t)
    bars = gradient(solved.problem, as_array(t), as_array(zs), as_array(zs_bar), solved.leaves, wants_t)
    return tuple(torch.as_tensor(np.asarray(bar), device=zs.device) for bar in bars)


def _like_params(theta, leaves, params):
    """The parts of theta, shaped as leaves, on the devices and in the dtypes of params."""
    return [part.to(param.device, param.dtype) for part, param in zip(unpack_like(theta, leaves, torch.reshape), params)]


def _traced_gradient(solved, z0, t, zs, zs_bar, wants_t):
    """gradient in PyTorch's graph, for derivatives of derivatives.

    A sweep of reverse solves that are differentiated in turn; where z(t) is not found backwards, a primitive whose own derivative
    is that of the tangent system, as in odeint.py. The primitive has no derivative by t.
    """
    if solved.problem.reconstruction != "interpolate" or wants_t:
        try:
            return _sweep_of_traced_solves(solved, t, zs, zs_bar, wants_t)
        except (Lost, SolverError) as error:
            if solved.problem.reconstruction == "solve":
                raise
            if wants_t:
                raise NotImplementedError(
                    f"create_graph=True with a gradient with respect to t: {error}. Where z(t) comes from the forward solve, "
                    "solvers_bridge.torch has derivatives of derivatives with respect to y0 and what func uses only; "
                    "solvers_bridge.odeint has all"
                ) from error
    bars = _Pullback.apply(solved, zs.detach(), zs_bar, z0, t.detach(), *solved.params)
    n = solved.problem.layout.size
    return bars[:n], None, bars[n:]


def _sweep_of_traced_solves(solved, t, zs, zs_bar, wants_t):
    problem, leaves, params, constants = solved
    dynamics, augmented = problem.dynamics, Augmented(problem.layout.size, num_params(leaves))
    adjoint, times, watch = adjoint_problem(problem._replace(discrete=False), leaves), as_array(t), Watch(problem, traced=True)
    step, is_warm = problem.warm and problem.warm.step, problem.warm_restart and problem.adjoint_solver.integrator.adaptive

    def segment(i, a, theta_bar, t0_bar):
        nonlocal step
        if are_close(times[i], times[i - 1]):
            return a, theta_bar, t0_bar
        s = torch.cat([zs[i], a, torch.as_tensor(theta_bar).to(a), torch.as_tensor(t0_bar).to(a).reshape(1)])
        warm = Warm(step) if is_warm else None
        of_segment = Solved(adjoint._replace(warm=warm), leaves, params, constants)
        s = Solve.apply(of_segment, s, torch.stack([t[i], t[i - 1]]), *params)[-1]
        step = warm and warm.step
        z, *bars = augmented.split(s)
        watch.check(as_array(z), as_array(zs[i - 1]), as_array(zs[i]), times[i], times[i - 1])
        return bars

    def slope(t_i, z):
        if not wants_t:
            return torch.zeros_like(z)
        return dynamics.traced(at_slope_time(t_i, float(t_i.detach()), times, problem.solver.options), z)

    from_slope = problem.discrete or bool(problem.solver.options.jump_t)
    bars = reverse_sweep(segment, slope, t, zs, zs_bar, augmented.p, lambda a, theta_bar: False, _Torch, t0_from_slope=from_slope)
    watch.tell()
    return bars[0], bars[1], torch.as_tensor(bars[2]).to(zs)


class _Pullback(torch.autograd.Function):
    """[z0_bar (n), theta_bar (P)] of a solve for the cotangent zs_bar (T, n) of its states zs, which are known."""

    @staticmethod
    def forward(ctx, solved, zs, zs_bar, z0, t, *params):
        ctx.solved = solved
        ctx.save_for_backward(zs_bar, z0, t, *params, *solved.constants)
        z0_bar, _, theta_bar = gradient(solved.problem, as_array(t), as_array(zs), as_array(zs_bar), solved.leaves, False)
        return torch.as_tensor(np.concatenate([z0_bar, theta_bar]), device=zs.device)

    @staticmethod
    def backward(ctx, direction):
        # <pullback(zs_bar), direction> = <zs_bar, tangent(direction)>, whose derivatives are a tangent and its own pullback.
        (problem, leaves, params, constants), n = ctx.solved, len(ctx.saved_tensors[1])
        zs_bar, z0, t = ctx.saved_tensors[:3]
        directions = _like_params(direction[n:], leaves, params)
        # Nor would the tangent system's z(t) be found backwards.
        problem = problem._replace(dynamics=problem.dynamics.along(directions), reconstruction="interpolate")
        tangent = Solved(tangent_problem(problem, 2 * len(leaves)), [*leaves, *leaves], (*params, *directions), constants)
        start = torch.cat([z0, direction[:n]])
        both = Solve.apply(tangent, start, t, *tangent.params)
        start_bar, _, theta_bar = _vjp(tangent, start, t, both, torch.cat([torch.zeros_like(zs_bar), zs_bar], 1), False)
        return None, None, both[:, n:], start_bar[:n], None, *_like_params(theta_bar[: num_params(leaves)], leaves, params)


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

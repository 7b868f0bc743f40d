"""The steps of an explicit Runge-Kutta method in PyTorch's graph, made of the evaluations that its Fortran asked for."""

from __future__ import annotations

import numpy as np
import torch

from .dynamics.torch_graph import Linked, Used, other_leaves
from .solve import Kept, at_slope_time, beside, inside_of, solve
from .torch_primitive import as_array


def through_steps(problem, z0, t):
    """States (T, n) of an explicit Runge-Kutta method at times t (T,) from z0 (n,), with the steps it took in PyTorch's graph.

    k_i = f(t + c_i h, Y_i), Y_i = z + h sum_j a_ij k_j, z_next = z + h sum_i b_i k_i; step sizes count as given, in proportion to
    the interval between output times. The graph of an evaluation is the one made when the integrator asked for it: nothing is
    evaluated again, and what func is by the time of the backward pass plays no part.
    """
    times, kept = as_array(t), Kept()
    kept.tape = []
    evaluations = _Evaluations(problem.dynamics, t.requires_grad)
    layout = problem.layout
    zs, statistics = solve(problem.solver, evaluations, as_array(z0), times, problem.direction, layout=layout, kept=kept)
    found = len(evaluations.made)
    options, states, z = problem.solver.options, [z0], z0
    # func jumps when it does, wherever the output time there is moved.
    at_jump = [0 < i < len(times) - 1 and beside(time, times[0], options) != time for i, time in enumerate(times)]
    bounds = [time.detach() if is_at_jump else time for time, is_at_jump in zip(t, at_jump)]
    for i, steps in enumerate(kept.tape, start=1):
        inside = inside_of(times[i - 1], times[i], options)[0]
        ends = [*(step.z for step in steps[1:]), zs[i]]
        for step, end in zip(steps, ends):
            z = _linked_step(problem, evaluations, step, end, inside, z, bounds[i - 1 : i + 1])
        states.append(z)
        if t.requires_grad and at_jump[i]:
            slope = problem.dynamics.traced(at_slope_time(bounds[i], times[i], times, options), z)
            states[-1] = z + (t[i] - bounds[i]) * slope
    statistics.nfe += len(evaluations.made) - found
    return torch.stack(states)


def _linked_step(problem, evaluations, step, end, inside, z, t):
    """The state after a step from z, whose value is end, in the graph; t are the two output times around it."""
    tableau, ks = problem.solver.integrator.tableau, []
    times = step.t + tableau.c * step.h
    if inside is not None:
        times = np.clip(times, min(inside), max(inside))
    h, stage_ts = step.h, [None] * len(times)
    if evaluations.wants_t:
        start, span = as_array(t[0]), t[1] - t[0]
        length = as_array(span)
        h = step.h / length * span
        stage_ts = [t[0] + (time - start) / length * span for time in times]
    for k, evaluation in enumerate(evaluations.of_step(step, times, tableau.a)):
        stage = _combined(evaluation.z, h, tableau.a[k, :k], z, ks)
        ks.append(evaluation.linked(stage, stage_ts[k], problem.dynamics))
    return _combined(torch.as_tensor(end, device=z.device), h, tableau.b, z, ks)


class _Evaluations:
    """f(t, z) for the integrator, which keeps each evaluation with its graph."""

    def __init__(self, dynamics, wants_t):
        self.dynamics, self.wants_t = dynamics, wants_t
        self.made, self.searched = [], 0

    def __call__(self, t, z):
        return self._evaluate(t, z).value

    def _evaluate(self, t, z):
        self.made.append(_Evaluation(self.dynamics, self.wants_t, t, z))
        return self.made[-1]

    def of_step(self, step, times, a):
        """The evaluations that were the stages of a step: those at its times with its values, the further ones in a row.

        Among them are those of steps that were rejected or made again. What is not found is evaluated.
        """
        close, count = 1e-6 * abs(step.h) + 4 * np.spacing(np.abs(times).max()), len(step.ks)

        def is_stage(evaluation, k):
            return abs(evaluation.t - times[k]) <= close and np.array_equal(evaluation.value, step.ks[k])

        for at in range(self.searched, len(self.made) - count + 2):
            further = self.made[at : at + count - 1]
            if all(is_stage(evaluation, k) for k, evaluation in enumerate(further, start=1)):
                first = next((self.made[i] for i in range(at - 1, -1, -1) if is_stage(self.made[i], 0)), None)
                self.searched = at + count - 1
                return [self._evaluate(times[0], step.z) if first is None else first, *further]
        return [self._evaluate(time, step.z + step.h * (a[k, :k] @ step.ks[:k])) for k, time in enumerate(times)]


class _Evaluation:
    """One evaluation of func: t, value (n,), z, and `output` as a function of `leaves` in a graph of its own."""

    def __init__(self, dynamics, wants_t, t, z):
        self.t, self.wants_t, used = t, wants_t, dynamics.used
        with torch.enable_grad():
            state = torch.tensor(z, dtype=dynamics.torch_dtype, device=dynamics.device).requires_grad_()
            time = dynamics.time(t).requires_grad_(wants_t)
            # Clones, into which func may write.
            self.output = dynamics.func(time.clone(), state.clone())
        own = (state, time) if wants_t else (state,)
        # What func used for the first time later is found in the graph.
        others = other_leaves(self.output, (*own, *used.tensors)) if self.output.requires_grad else ()
        self.leaves, self.used = own, Used((*used.tensors, *others)) if others else used
        # A copy: func may return the same memory each time.
        self.value = np.array(as_array(self.output))

    @property
    def z(self):
        """The state, in float64."""
        return self.leaves[0].detach().to(torch.float64)

    def linked(self, z, t, dynamics):
        """The value in float64, as the function of z, t and params that it is."""
        if not self.output.requires_grad:
            return torch.as_tensor(self.value, device=dynamics.device)
        inputs = (z.to(dynamics.torch_dtype), *((dynamics.time(t),) if self.wants_t else ()), *self.used.tensors)
        return Linked.apply((self.output, self.leaves, self.used), *inputs).to(torch.float64)


def _combined(value, h, coefficients, z, ks):
    """z + h sum_i coefficients_i k_i, whose value is known."""
    wanted = np.flatnonzero(coefficients)
    return _Combined.apply(value, [float(coefficients[i]) for i in wanted], h, z, *(ks[i] for i in wanted))


class _Combined(torch.autograd.Function):
    """z + h sum_i c_i k_i, given its value; h is a number, or a tensor that is differentiated."""

    @staticmethod
    def forward(ctx, value, coefficients, h, z, *ks):
        ctx.coefficients, ctx.h = coefficients, h
        if isinstance(h, torch.Tensor):
            ctx.save_for_backward(h, *ks)
        return value.clone()

    @staticmethod
    def backward(ctx, bar):
        h, h_bar = ctx.h, None
        if isinstance(h, torch.Tensor):
            h, *ks = ctx.saved_tensors
            h_bar = sum((c * torch.dot(bar, k) for c, k in zip(ctx.coefficients, ks)), torch.zeros_like(h))
        return None, None, h_bar, bar, *((c * h) * bar for c in ctx.coefficients)

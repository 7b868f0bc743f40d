"""Speed of a continuous normalizing flow's training iteration: its solve and gradient beside torchdiffeq's adjoint."""

import numpy as np
from tabulate import tabulate

from original_repro import flows
from solvers_bridge import odeint

from .side_by_side import (
    compare,
    heading,
    native_candidate,
    native_is_available,
    solve_and_differentiate,
    summarise,
    take_turns,
    torch_candidate,
    torchdiffeq_is_installed,
)

POINTS, UNITS, WIDTH, TOLERANCE, TIMES = 512, 64, 32, 1e-5, (10.0, 0.0)


def bench_flow(rounds, points=POINTS, units=UNITS):
    """A planar flow's points with log density solved from the data to the base, and the gradient of the mean log-likelihood.

    By ours, with and without the seminorm, with the graphs compiled ahead of time, and where installed by torchdiffeq (dopri5,
    adjoint, float32, trace by automatic differentiation, as its example of a continuous normalizing flow has it). Returns metrics
    flow_*, flow_speedup among them.
    """
    heading(
        f"Continuous normalizing flow, {points} points, {units} units, tolerance {TOLERANCE:g}: "
        "milliseconds, median (minimum); evaluations; share of the solve outside graphs"
    )
    problem = Problem(points, units)
    candidates = {"ours": problem.step, "ours_seminorm": lambda: problem.step(adjoint_options={"norm": "seminorm"})}
    if native_is_available():
        candidates |= {"ours_native": problem.native(), "ours_dopri5_native": problem.native(method="dopri5")}
    if torchdiffeq_is_installed():
        candidates["torchdiffeq"] = torch_flow(problem)
    results = take_turns(candidates, rounds)
    metrics = summarise(results, "flow", "ms")
    if "ours_native" in results:
        graph, native = ([step.seconds for step in results[name]] for name in ("ours", "ours_native"))
        metrics["flow_native_over_graph_speedup"] = compare(graph, native)[0]
    if "torchdiffeq" not in results:
        print('torch and torchdiffeq are not installed: pip install "neural-ode-repro[modern]"', flush=True)
        return metrics
    rows = []
    for name in (name for name in results if name != "torchdiffeq"):
        speedup, of_minima = compare(*([step.seconds for step in results[other]] for other in ("torchdiffeq", name)))
        label = "flow_speedup" + name.removeprefix("ours")
        metrics |= {label: speedup, f"{label}_of_minima": of_minima}
        rows.append([name, speedup, of_minima])
    print("\nTimes faster than torchdiffeq")
    print(tabulate(rows, ["", "median of the rounds' ratios", "ratio of minima"], floatfmt=".1f"), flush=True)
    return metrics


class Problem:
    """The flow at its initialisation: y0 (points, 3) normal points with log density 0, states_bar the loss's cotangent."""

    def __init__(self, points=POINTS, units=UNITS):
        rng = np.random.default_rng(0)
        self.dynamics = flows.ContinuousFlow(flows.planar_dynamics, TIMES[::-1]).dynamics
        self.params = flows.init_planar_dynamics(rng, units, width=WIDTH)
        self.y0 = np.concatenate([rng.normal(size=(points, 2)), np.zeros((points, 1))], 1).astype(np.float32)
        end = odeint(self.dynamics, self.y0, TIMES, self.params, rtol=TOLERANCE, atol=TOLERANCE)[-1]
        end_bar = np.concatenate([end[:, :2], np.ones((points, 1))], 1) / points
        self.states_bar = np.stack([0 * end_bar, end_bar]).astype(np.float32)

    def step(self, **solver):
        """A Step at tolerance 1e-5, unless solver says otherwise."""
        return solve_and_differentiate(
            self.dynamics, self.y0, TIMES, self.params, self.states_bar, **{"rtol": TOLERANCE, "atol": TOLERANCE, **solver}
        )

    def native(self, **solver):
        """A function that makes such a Step with the graphs compiled ahead of time."""
        flow = flows.ContinuousFlow(flows.planar_dynamics, TIMES[::-1], compiler="native")
        solver = {"rtol": TOLERANCE, "atol": TOLERANCE, **solver}
        return native_candidate(flow.dynamics, self.y0, TIMES, self.params, self.states_bar, **solver)


def torch_flow(problem, tolerance=TOLERANCE):
    """A function that makes a Step of `problem` in torchdiffeq, written as its example examples/cnf.py is.

    Raises RuntimeError if its dy/dt differs from ours by more than 1e-4.
    """
    import torch

    def f(t, y, weights):
        hidden1, bias1, hidden2, bias2, output, bias3 = weights
        with torch.set_grad_enabled(True):
            z = y[:, :2]
            if not z.requires_grad:
                z.requires_grad_(True)
            hyper = torch.tanh(t.reshape(1, 1) @ hidden1 + bias1)
            hyper = (torch.tanh(hyper @ hidden2 + bias2) @ output + bias3).reshape(-1)
            units = len(hyper) // 6
            w, u, gate, b = torch.split(hyper, [2 * units, 2 * units, units, units])
            w, u = w.reshape(2, units).T.reshape(units, 2, 1), u.reshape(units, 1, 2)
            u = u * torch.sigmoid(gate).reshape(units, 1, 1)
            stacked = z.unsqueeze(0).repeat(units, 1, 1)
            dz = torch.matmul(torch.tanh(torch.matmul(stacked, w) + b.reshape(units, 1, 1)), u).mean(0)
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
        return torch.cat([dz, -trace[:, None]], 1)

    names = ("hidden1", "hidden2", "output")
    arrays = [problem.params[name][part] for name in names for part in ("weight", "bias")]
    theirs = f(torch.tensor(3.0), torch.tensor(problem.y0), [torch.tensor(array) for array in arrays]).detach().numpy()
    difference = np.abs(theirs - problem.dynamics.func(3.0, problem.y0, problem.params).numpy()).max()
    if difference > 1e-4:
        raise RuntimeError(f"the flow in PyTorch differs from ours by {difference:g}")
    return torch_candidate(f, arrays, problem.y0, list(TIMES), problem.states_bar, tolerance)

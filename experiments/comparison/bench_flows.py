"""Speed of a continuous normalizing flow's training iteration: its solve and gradient beside torchdiffeq's adjoint."""

from tabulate import tabulate

from solvers_bridge import TensorFlowDynamics

from .modern import problems
from .modern.of_solvers_bridge import Bridge
from .side_by_side import candidate, heading, native_is_available, over, peers, summarise, take_turns

POINTS, TOLERANCE = 512, 1e-5
RIVALS = {"torchdiffeq": "flow_speedup", "torchdiffeq_by_hand": "flow_speedup_by_hand"}  # the metrics of ours over them


def bench_flow(rounds, flow=None):
    """A planar flow's points with log density solved from the data to the base, and the gradient of the mean log-likelihood.

    By ours, with and without the seminorm, with the graphs compiled ahead of time, and where installed by torchdiffeq (dopri5,
    adjoint, float32, written as its example is, and by hand as ours). Returns metrics flow_*, flow_speedup among them.
    """
    flow = flow or problems.flow(POINTS)
    points, units = len(flow.problem.y0), flow.params["output"]["bias"].size // 6
    heading(
        f"Continuous normalizing flow, {points} points, {units} units, tolerance {TOLERANCE:g}: "
        "milliseconds, median (minimum); evaluations"
    )
    results = take_turns(ours(flow) | others(flow), rounds)
    metrics = summarise(results, "flow", "ms")
    if "ours_native" in results:
        metrics["flow_native_over_graph_speedup"] = over(results, "ours", "ours_native")[0]
    rows = []
    for rival in (rival for rival in RIVALS if rival in results):
        for name in (name for name in results if name not in RIVALS):
            speedup, of_minima = over(results, rival, name)
            label = RIVALS[rival] + name.removeprefix("ours")
            metrics |= {label: speedup, f"{label}_of_minima": of_minima}
            rows.append([name, rival, speedup, of_minima])
    if rows:
        print("\nTimes faster")
        print(tabulate(rows, ["", "than", "median of the rounds' ratios", "ratio of minima"], floatfmt=".1f"), flush=True)
    return metrics


def ours(flow):
    """Candidates with the dynamics that flows are trained with."""
    ways = {
        "ours": ("graph", {}),
        "ours_seminorm": ("graph", {"adjoint_options": {"norm": "seminorm"}}),
        "ours_native": ("native", {}),
        "ours_dopri5_native": ("native", {"method": "dopri5"}),
    }
    compilers = {"graph": flow.dynamics}
    if native_is_available():
        compilers["native"] = TensorFlowDynamics(flow.dynamics.func, "float32", compiler="native")
    problem = flow.problem._replace(params=flow.params)
    return {
        name: candidate(Bridge(problem, compilers[compiler]).solver_of(rtol=TOLERANCE, atol=TOLERANCE, **arguments))
        for name, (compiler, arguments) in ways.items()
        if compiler in compilers
    }


def others(flow):
    """Candidates of torchdiffeq, with the dynamics of its example, whose trace is by autograd, and with ours, by hand."""

    def derivative(t, y):
        return flow.dynamics.func(t, y, flow.params).numpy()

    written = {"torchdiffeq": as_in_torchdiffeqs_example, "torchdiffeq_by_hand": flow.problem.f}
    found = {}
    for name, f in written.items():
        wanted = {name: ("torchdiffeq", "dopri5, adjoint")}
        found |= peers(flow.problem._replace(f=f), derivative, TOLERANCE, wanted)
    return found


def as_in_torchdiffeqs_example(ops, t, y, w1, b1, w2, b2, w3, b3):
    """`right_hand_sides.planar_flow` in PyTorch, written as torchdiffeq's examples/cnf.py is: trace by autograd."""
    import torch

    with torch.set_grad_enabled(True):
        z = y[:, :2]
        if not z.requires_grad:
            z.requires_grad_(True)
        hyper = torch.tanh(t.reshape(1, 1) @ w1 + b1)
        hyper = (torch.tanh(hyper @ w2 + b2) @ w3 + b3).reshape(-1)
        units = len(hyper) // 6
        w, u, gate, b = torch.split(hyper, [2 * units, 2 * units, units, units])
        w, u = w.reshape(2, units).T.reshape(units, 2, 1), u.reshape(units, 1, 2)
        u = u * torch.sigmoid(gate).reshape(units, 1, 1)
        stacked = z.unsqueeze(0).repeat(units, 1, 1)
        dz = torch.matmul(torch.tanh(torch.matmul(stacked, w) + b.reshape(units, 1, 1)), u).mean(0)
        trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
    return torch.cat([dz, -trace[:, None]], 1)

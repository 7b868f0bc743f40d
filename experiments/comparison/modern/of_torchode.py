"""torchode: parallel solves in PyTorch, each member of a batch with steps of its own."""

import torch
import torchode

from experiments.harness import right_hand_sides

from .library import Library, Solver
from .operations import of_torch

MAX_STEPS = 20_000


class Torchode(Library):
    """Where the rows of a state are independent they are its batch; otherwise the batch has one member, the flat state."""

    METHODS = {"dopri5, direct": "any", "tsit5, direct": "smooth", "dopri5, joint backsolve": "any"}
    PACKAGES = ("torchode", "torch", "numpy")

    def __init__(self, problem):
        super().__init__(problem)
        ops, shape = of_torch(), problem.y0.shape
        batch = shape[0] if problem.f is right_hand_sides.mlp else 1

        class Dynamics(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weights = torch.nn.ParameterList(torch.tensor(array) for array in problem.params)

            def forward(self, t, y):
                return problem.f(ops, t[0], y.reshape(shape), *self.weights).reshape(y.shape)

        self.func = Dynamics()
        self.y0 = torch.tensor(problem.y0).reshape(batch, -1)
        self.t = torch.tensor(problem.t).expand(batch, -1)
        # Its states are (batch, T, features).
        self.states_bar = torch.tensor(problem.states_bar).reshape(len(problem.t), batch, -1).transpose(0, 1)

    @staticmethod
    def one_thread():
        torch.set_num_threads(1)

    def derivative(self, t, y):
        flat = torch.tensor(y).reshape(self.y0.shape)
        return self.func(torch.full((len(flat),), t, dtype=torch.float64), flat).detach().numpy().reshape(y.shape)

    def solver(self, method, rtol, atol):
        name, way = method.split(", ")
        term = torchode.ODETerm(self.func)
        step = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[name](term=term)
        control = torchode.IntegralController(atol=atol, rtol=rtol, term=term)
        direct, counts = torchode.AutoDiffAdjoint(step, control, max_steps=MAX_STEPS), {}
        solver = torchode.JointBacksolveAdjoint(term, step, control) if way == "joint backsolve" else direct

        def solve(y0, solver):
            found = solver.solve(torchode.InitialValueProblem(y0=y0, t_eval=self.t))
            if found.status.any():
                raise RuntimeError(f"torchode's status is {found.status.max().item()}")
            counts["forward"] = int(found.stats["n_f_evals"].max())
            return found.ys

        def as_ours(states):
            return states.detach().transpose(0, 1).reshape(-1, *self.problem.y0.shape).numpy()

        def forward():
            with torch.no_grad():
                return as_ours(solve(self.y0, direct))

        def gradient():
            y0 = self.y0.clone().requires_grad_()
            self.func.zero_grad()
            states = solve(y0, solver)
            states.backward(self.states_bar)
            y0_bar = y0.grad.reshape(self.problem.y0.shape).numpy()
            return as_ours(states), y0_bar, [weight.grad.numpy() for weight in self.func.weights]

        return Solver(forward, gradient, counts)

"""torchdiffeq: its adjoint (the paper's), and backpropagation through its steps."""

import time

import torch
import torchdiffeq

from .library import Library, Solver
from .operations import of_torch


class Torchdiffeq(Library):
    """`odeint_adjoint` and `odeint`; "LSODA" is SciPy's, by its method "scipy_solver"."""

    METHODS = {"dopri5, adjoint": "any", "dopri8, adjoint": "smooth", "dopri5, direct": "any", "LSODA, adjoint": "stiff"}
    PACKAGES = ("torch", "torchdiffeq", "numpy", "scipy")

    def __init__(self, problem):
        super().__init__(problem)
        ops, outer = of_torch(), self
        self.evaluations = 0

        class Dynamics(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weights = torch.nn.ParameterList(torch.tensor(array) for array in problem.params)

            def forward(self, t, y):
                outer.evaluations += 1
                return problem.f(ops, t, y, *self.weights)

        self.func = Dynamics()
        arrays = problem.y0, problem.t.astype(problem.y0.dtype), problem.states_bar
        self.y0, self.t, self.states_bar = (torch.tensor(array) for array in arrays)

    @staticmethod
    def one_thread():
        torch.set_num_threads(1)

    def derivative(self, t, y):
        return self.func(torch.tensor(t, dtype=self.y0.dtype), torch.tensor(y)).detach().numpy()

    def solver(self, method, rtol, atol):
        name, way = method.split(", ")
        odeint = torchdiffeq.odeint_adjoint if way == "adjoint" else torchdiffeq.odeint
        means = {"method": "scipy_solver", "options": {"solver": name}} if name == "LSODA" else {"method": name}
        counts = {}

        def forward():
            with torch.no_grad():
                return torchdiffeq.odeint(self.func, self.y0, self.t, rtol=rtol, atol=atol, **means).numpy()

        def gradient():
            self.evaluations, y0 = 0, self.y0.clone().requires_grad_()
            self.func.zero_grad()
            states = odeint(self.func, y0, self.t, rtol=rtol, atol=atol, **means)
            counts["turned"] = time.perf_counter()
            counts["forward"], self.evaluations = self.evaluations, 0
            states.backward(self.states_bar)
            counts["backward"] = self.evaluations
            return states.detach().numpy(), y0.grad.numpy(), [weight.grad.numpy() for weight in self.func.weights]

        return Solver(forward, gradient, counts)

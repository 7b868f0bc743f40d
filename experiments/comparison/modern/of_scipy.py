"""SciPy's solve_ivp with NumPy's functions: what a forward solve costs without any gradient."""

import numpy as np
from scipy.integrate import solve_ivp

from .library import Library, Solver
from .operations import of_numpy


class SciPy(Library):
    """Forward only."""

    METHODS = {"RK45": "smooth", "DOP853": "smooth", "LSODA": "any", "BDF": "stiff", "Radau": "stiff"}
    PACKAGES = ("scipy", "numpy")

    def __init__(self, problem):
        super().__init__(problem)
        self.ops = of_numpy(np)

    def derivative(self, t, y):
        return self.problem.f(self.ops, t, y, *self.problem.params)

    def solver(self, method, rtol, atol):
        y0, t, counts = self.problem.y0, self.problem.t, {}
        if method == "LSODA" and y0.size > 10_000:
            raise MemoryError(f"LSODA would keep a dense matrix of {y0.size:,} by {y0.size:,}")

        def f(t, y):
            return np.reshape(self.derivative(t, y.reshape(y0.shape)), -1)

        def forward():
            found = solve_ivp(f, (t[0], t[-1]), y0.reshape(-1), method=method, t_eval=t, rtol=rtol, atol=atol)
            if not found.success:
                raise RuntimeError(found.message)
            counts["forward"] = found.nfev
            return found.y.T.reshape(len(t), *y0.shape)

        return Solver(forward, None, counts)

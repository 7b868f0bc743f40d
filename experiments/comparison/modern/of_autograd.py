"""autograd's own odeint: SciPy's LSODA with the paper's adjoint in Python, as its appendix D has it."""

import time

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.scipy.integrate import odeint

from .library import Library, Solver
from .operations import of_numpy


class AutogradOwn(Library):
    """States are flat for it. Its LSODA keeps a matrix of the augmented system, so that large ones are refused here."""

    METHODS = {"LSODA, adjoint": "any"}
    PACKAGES = ("autograd", "scipy", "numpy")
    LARGEST = 10_000  # unknowns of the augmented system: 800 MB

    def __init__(self, problem):
        super().__init__(problem)
        ops, shape = of_numpy(anp), problem.y0.shape
        self.evaluations = 0

        def f(y, t, *params):
            self.evaluations += 1
            return anp.reshape(problem.f(ops, t, anp.reshape(y, shape), *params), (-1,))

        self.f = f

    def derivative(self, t, y):
        return self.f(y.reshape(-1), t, *self.problem.params).reshape(y.shape)

    def solver(self, method, rtol, atol):
        y0, t, params, counts, shape = self.problem.y0.reshape(-1), self.problem.t, self.problem.params, {}, self.problem.y0.shape
        size = 2 * y0.size + sum(array.size for array in params) + 1
        if size > self.LARGEST:
            raise MemoryError(f"LSODA would keep a dense matrix of {size:,} by {size:,}")

        def solve(y0, params):
            return odeint(self.f, y0, t, params, rtol=rtol, atol=atol, mxstep=20_000)

        def gradient():
            self.evaluations = 0
            pullback, states = make_vjp(solve, (0, 1))(y0, params)
            counts["turned"] = time.perf_counter()
            counts["forward"], self.evaluations = self.evaluations, 0
            y0_bar, params_bar = pullback(np.reshape(self.problem.states_bar, (len(t), -1)))
            counts["backward"] = self.evaluations
            return states.reshape(-1, *shape), y0_bar.reshape(shape), params_bar

        return Solver(lambda: solve(y0, params).reshape(-1, *shape), gradient, counts)

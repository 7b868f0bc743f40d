"""solvers_bridge, ours: SciPy's Fortran with dynamics in autograd, as a TensorFlow graph, or compiled ahead of time."""

import time

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp

from solvers_bridge import odeint, record_solves

from .library import Library, Solver
from .operations import of_numpy, of_tensorflow

WAYS = {
    "adjoint": {},
    "interpolated adjoint": {"adjoint_options": {"reconstruction": "interpolate"}},
    "warm adjoint": {"adjoint_options": {"restart": "warm"}},
    "discrete": {"adjoint_method": "discrete"},
}
NEWTON = ("bdf", "radau")


class Bridge(Library):
    """What its three kinds of dynamics share; func(t, y, params) is made by `function`, or given, of nested params."""

    METHODS = {"adams, adjoint": "smooth", "lsoda, adjoint": "any", "bdf, interpolated adjoint": "stiff"}
    PACKAGES = ("autograd", "scipy", "numpy", "tensorflow")

    def __init__(self, problem, func=None):
        super().__init__(problem)
        self.func = self.function() if func is None else func

    def function(self):
        raise NotImplementedError

    def solver(self, method, rtol, atol):
        name, way = method.split(", ")
        options = {"max_num_steps": 20_000, **({"jacobian": "autodiff"} if name in NEWTON else {})}
        return self.solver_of(method=name, rtol=rtol, atol=atol, options=options, **WAYS[way])

    def solver_of(self, **arguments):
        """The Solver of `odeint` with these arguments."""
        problem, counts = self.problem, {}

        def solve(y0, params):
            return odeint(self.func, y0, problem.t, params, **arguments)

        def pulled_back():
            pullback, states = make_vjp(solve, (0, 1))(problem.y0, problem.params)
            counts["turned"] = time.perf_counter()
            return states, *pullback(problem.states_bar)

        def gradient():
            if "forward" in counts:
                return pulled_back()
            with record_solves() as solves:
                found = pulled_back()
            counts["forward"] = sum(solve.nfe for solve in solves if solve.direction == "forward")
            counts["backward"] = sum(solve.nfe for solve in solves if solve.direction != "forward")
            return found

        return Solver(lambda: solve(problem.y0, problem.params), gradient, counts)


class OfAutograd(Bridge):
    """Dynamics in autograd.numpy."""

    PACKAGES = ("autograd", "scipy", "numpy")

    def function(self):
        ops = of_numpy(anp)
        return lambda t, y, params: self.problem.f(ops, t, y, *params)

    def derivative(self, t, y):
        return np.asarray(self.func(t, y, self.problem.params))


class OfGraph(Bridge):
    """Dynamics as a TensorFlow graph, through a call from Python an evaluation."""

    compiler = "graph"
    COMPILED = True

    def function(self):
        from original_repro.layers import group_norm
        from solvers_bridge import TensorFlowDynamics

        def norm(x, scale, shift, groups):
            return group_norm({"scale": scale, "shift": shift}, x, groups)

        ops = of_tensorflow(norm)
        self.in_tensorflow = lambda t, y, params: self.problem.f(ops, t, y, *params)
        return TensorFlowDynamics(self.in_tensorflow, self.problem.y0.dtype.name, compiler=self.compiler)

    @staticmethod
    def one_thread():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)

    def derivative(self, t, y):
        import tensorflow as tf

        return self.in_tensorflow(tf.constant(t, y.dtype), tf.constant(y), self.problem.params).numpy()


class OfNative(OfGraph):
    """The same graph compiled ahead of time and called by the Fortran."""

    METHODS = {
        **Bridge.METHODS,
        "radau, interpolated adjoint": "stiff",
        "dopri5, discrete": "any",
        "dopri5, warm adjoint": "smooth",
        "dop853, discrete": "smooth",
    }
    compiler = "native"

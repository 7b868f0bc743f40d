"""jax.experimental.ode: dopri5 and its adjoint, a fresh solve between output times, compiled whole."""

import jax
from jax import numpy as jnp
from jax.experimental.ode import odeint

from .library import Library, Solver
from .operations import of_jax


class Compiled(Library):
    """What libraries on JAX share: a solve becomes a Solver of two compiled functions."""

    COMPILED = True

    def __init__(self, problem):
        super().__init__(problem)
        jax.config.update("jax_enable_x64", True)
        ops = of_jax()
        self.f = lambda t, y, params: problem.f(ops, t, y, *params)
        self.params, self.y0, self.t, self.states_bar = jax.tree.map(
            jnp.asarray, (problem.params, problem.y0, problem.t.astype(problem.y0.dtype), problem.states_bar)
        )

    def derivative(self, t, y):
        return jax.jit(self.f)(t, y, self.params)

    def functions(self, solve):
        """solve(params, y0, *tolerances) -> (states, evaluations or None), and with its pullback, compiled."""

        @jax.jit
        def pulled_back(params, y0, states_bar, *tolerances):
            states, pullback, count = jax.vjp(lambda params, y0: solve(params, y0, *tolerances), params, y0, has_aux=True)
            params_bar, y0_bar = pullback(states_bar)
            return states, y0_bar, params_bar, count

        return jax.jit(solve), pulled_back

    def compiled(self, functions, *tolerances):
        """The Solver of what `functions` made, at these tolerances."""
        (forward, pulled_back), counts = functions, {}

        def gradient():
            *found, count = jax.block_until_ready(pulled_back(self.params, self.y0, self.states_bar, *tolerances))
            counts.update({} if count is None else {"forward": int(count)})
            return found

        return Solver(lambda: jax.block_until_ready(forward(self.params, self.y0, *tolerances))[0], gradient, counts)


class JaxExperimental(Compiled):
    """It counts nothing, and its tolerances are compiled in."""

    METHODS = {"dopri5, adjoint": "any"}
    PACKAGES = ("jax", "jaxlib", "numpy")

    def solver(self, method, rtol, atol):
        def solve(params, y0):
            return odeint(lambda y, t, params: self.f(t, y, params), y0, self.t, params, rtol=rtol, atol=atol), None

        return self.compiled(self.functions(solve))

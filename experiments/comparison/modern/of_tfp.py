"""TensorFlow Probability's tfp.math.ode: Dormand-Prince and BDF with their adjoint, inside tf.function."""

import tensorflow as tf
import tensorflow_probability as tfp

from .library import Library, Solver
from .operations import of_tensorflow

MAX_STEPS = 20_000


class TensorFlowProbability(Library):
    """Parameters are its `constants`, to which its gradients go."""

    METHODS = {"DormandPrince, adjoint": "any", "BDF, adjoint": "stiff"}
    PACKAGES = ("tensorflow", "tensorflow-probability", "tf-keras", "numpy")
    COMPILED = True

    def __init__(self, problem):
        super().__init__(problem)
        ops = of_tensorflow()
        self.names = [f"param{number}" for number in range(len(problem.params))]
        self.f = lambda t, y, **params: problem.f(ops, t, y, *(params[name] for name in self.names))
        self.y0, self.states_bar = tf.constant(problem.y0), tf.constant(problem.states_bar)
        self.params = [tf.constant(array) for array in problem.params]
        self.solvers = {}

    def derivative(self, t, y):
        params = dict(zip(self.names, self.params, strict=True))
        return self.f(tf.constant(t, tf.float64), tf.constant(y), **params).numpy()

    def solver(self, method, rtol, atol):
        if method not in self.solvers:
            self.solvers[method] = self._functions(getattr(tfp.math.ode, method.split(", ")[0]))
        solve, pulled_back = self.solvers[method]
        tolerances, counts = [tf.constant(x, tf.float64) for x in (rtol, atol)], {}

        def gradient():
            states, y0_bar, params_bar, count = pulled_back(self.y0, self.states_bar, *tolerances, *self.params)
            counts["forward"] = int(count)
            return states.numpy(), y0_bar.numpy(), [bar.numpy() for bar in params_bar]

        return Solver(lambda: solve(self.y0, *tolerances, *self.params)[0].numpy(), gradient, counts)

    def _functions(self, kind):
        """solve and its pullback as graphs, for any tolerances."""
        t = self.problem.t

        @tf.function(autograph=False)
        def solve(y0, rtol, atol, *params):
            constants = dict(zip(self.names, params, strict=True))
            solver = kind(rtol=rtol, atol=atol, max_num_steps=MAX_STEPS)
            found = solver.solve(self.f, t[0], y0, solution_times=tf.constant(t), constants=constants)
            return found.states, found.diagnostics.num_ode_fn_evaluations

        @tf.function(autograph=False)
        def pulled_back(y0, states_bar, rtol, atol, *params):
            with tf.GradientTape() as tape:
                tape.watch([y0, *params])
                states, count = solve(y0, rtol, atol, *params)
            y0_bar, *params_bar = tape.gradient(states, [y0, *params], states_bar)
            return states, y0_bar, params_bar, count

        return solve, pulled_back

"""jacobian="autodiff" of TensorFlow dynamics, forwards and in the reverse sweep."""

import autograd.numpy as anp
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad

from solvers_bridge import TensorFlowDynamics, record_solves
from tests.helpers import solve, some_fast

T = np.array([0.0, 0.3, 1.0])


def van_der_pol(lib, stack):
    return lambda t, y, mu: stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


@pytest.mark.parametrize("method", ("bdf", "lsoda", "radau", "adams"))
def test_jacobians_by_autodiff(method):
    dynamics = TensorFlowDynamics(van_der_pol(tf, tf.stack), "float64")
    kwargs = {"y0": np.array([2.0, 0.0]), "t": np.array([0.0, 2.0]), "params": 30.0, "method": method}
    with record_solves() as solves:
        ys = solve(dynamics, **kwargs, options={"jacobian": "autodiff"})
        np.testing.assert_allclose(ys, solve(van_der_pol(anp, anp.array), **kwargs, options={"jacobian": "autodiff"}), rtol=1e-7)
        np.testing.assert_allclose(ys, solve(dynamics, **kwargs, options={"jacobian": "finite_difference"}), rtol=1e-5)
    assert solves[0].nje > 0 and solves[0].nje == solves[1].nje
    if method != "adams":  # whose steps on a stiff problem are decided by rounding
        assert solves[0].nfe < solves[2].nfe


@pytest.mark.parametrize("method", some_fast(("bdf", "lsoda", "radau"), "bdf"))
def test_jacobians_by_autodiff_in_the_reverse_sweep(method):
    def final(func):
        return lambda mu, y0: anp.sum(
            solve(func, y0, T, method, params=mu, rtol=1e-6, atol=1e-6, options={"jacobian": "autodiff"})[-1]
        )

    dynamics = TensorFlowDynamics(van_der_pol(tf, tf.stack), "float64")
    for argument in (0, 1):
        bar = grad(final(dynamics), argument)(5.0, np.array([2.0, 0.0]))
        np.testing.assert_allclose(bar, grad(final(van_der_pol(anp, anp.array)), argument)(5.0, np.array([2.0, 0.0])), rtol=1e-4)

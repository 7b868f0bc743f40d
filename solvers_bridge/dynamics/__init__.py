"""Dynamics: dz/dt = f(t, z, theta) on flat float64 vectors, with its adjoint system. One file a kind.

TensorFlow's is imported where it is asked for: solvers_bridge.dynamics.tensorflow.
"""

from .autograd import AutogradDynamics
from .base import Dynamics

__all__ = ["AutogradDynamics", "Dynamics"]

"""What a right-hand side is to the solvers: bound to a layout of the state and to parameters, on flat float64 vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import numpy as np

from ..nested import LEAF, Structure, is_differentiable

COMPILERS = ("graph", "native", "auto")  # of a TensorFlowDynamics


class Dynamics(ABC):
    """A right-hand side that integrators can call and whose adjoint and tangent systems are Dynamics again.

    States are flat float64 vectors of n numbers here, whatever the nesting and shapes, a Layout, that the user's function sees;
    parameters are the leaves of a nesting (see nested.flatten), so that nothing is packed or unpacked inside a solve.
    """

    def send(self, leaves):
        """leaves where the dynamics are evaluated, on a device perhaps, for every binding of one solve or reverse sweep."""
        return leaves

    @abstractmethod
    def bind(self, layout, structure, leaves):
        """rhs(t, z) -> dz/dt for one solve; leaves that were not sent yet are sent now, and not again."""

    @abstractmethod
    def bind_jacobian(self, layout, structure, leaves):
        """jacobian(t, z) -> array (n, n) of df_i/dz_j, for the Newton iterations of implicit methods."""

    @abstractmethod
    def augmented(self, layout, structure):
        """The Dynamics of the adjoint, Algorithms 1 and 2 of the paper, whose layout is adjoint.Augmented's.

        ds/dt = [f, -a df/dz, -a df/dtheta, -a df/dt] for s = [z, a, a_theta, a_t], flat. Its parameters are the same leaves,
        nested in one tuple; theta are those of them that are floating-point.
        """

    @abstractmethod
    def tangent(self, layout, structure):
        """The Dynamics of a directional derivative: d[z, v]/dt = [f, df/dz v + df/dtheta w] for a flat state (2n).

        Its parameters are one tuple of the leaves and, behind them, of the directions w of those that are floating-point.
        """


def num_params(leaves):
    """P: how many numbers in leaves have a gradient."""
    return sum(prod(np.shape(leaf)) for leaf in leaves if is_differentiable(leaf))


def leaf_tuple(count):
    """The Structure of a plain tuple of leaves, in which adjoint and tangent systems take their parameters."""
    return Structure(tuple, count, (LEAF,) * count, count)


def unpack_like(flat, leaves, reshape=np.reshape):
    """Slices of flat (P,) with the shapes of leaves; zeros for those that have no gradient."""
    parts, start = [], 0
    for leaf in leaves:
        shape = tuple(np.shape(leaf))
        if is_differentiable(leaf):
            size = prod(shape)
            parts.append(reshape(flat[start : start + size], shape))
            start += size
        else:
            parts.append(np.zeros(shape))
    return parts

"""Dynamics: dz/dt = f(t, z, theta) and its vector-Jacobian product on flat float64 vectors; the autograd.numpy kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox, new_box, toposort, trace_stack

from .nested import LEAF, Structure


class Dynamics(ABC):
    """A right-hand side that integrators can call and whose adjoint system is a Dynamics again.

    States are flat float64 vectors of n numbers here, whatever the shape that the user's function sees; parameters are
    the leaves of a nesting (see nested.flatten), so that nothing is packed or unpacked inside a solve.
    """

    def send(self, leaves):
        """leaves where the dynamics are evaluated, on a device perhaps, for every binding of one solve or reverse sweep."""
        return leaves

    @abstractmethod
    def bind(self, shape, structure, leaves):
        """rhs(t, z) -> dz/dt for one solve; leaves that were not sent yet are sent now, and not again."""

    @abstractmethod
    def bind_jacobian(self, shape, structure, leaves):
        """jacobian(t, z) -> array (n, n) of df_i/dz_j, for the Newton iterations of implicit methods."""

    @abstractmethod
    def augmented(self, shape, structure):
        """The Dynamics of the adjoint, Algorithms 1 and 2 of the paper.

        Its state is s = [z (n), a (n), a_theta (P), a_t (1)], flat; ds/dt = [f, -a df/dz, -a df/dtheta, -a df/dt]. Its
        parameters are the same leaves, nested in one tuple.
        """

    def differentiable(self, shape, structure):
        """f(t, z, *leaves) on flat states as an autograd primitive, differentiable to any order by the augmented system."""
        evaluations = _Evaluations(self, shape, structure)

        def f(t, z, *leaves):
            return _evaluate(evaluations, t, z, *leaves)

        return f


class _Evaluations:
    """Evaluations of dynamics during one solve, and those of their augmented system, if a derivative asks for them."""

    def __init__(self, dynamics, shape, structure):
        self.dynamics, self.shape, self.structure = dynamics, shape, structure
        self.binding = _LastBinding(dynamics, shape, structure)
        self.f_augmented = None

    def augmented(self, leaves):
        """f(t, s, *leaves) of the augmented system."""
        if self.f_augmented is None:
            size = 2 * prod(self.shape) + num_params(leaves) + 1
            self.f_augmented = self.dynamics.augmented(self.shape, self.structure).differentiable((size,), leaf_tuple(leaves))
        return self.f_augmented


# One primitive for all dynamics: autograd keeps every primitive, with all that it refers to, for ever.
@primitive
def _evaluate(evaluations, t, z, *leaves):
    # The copy: autograd's tape keeps it, and an evaluation may share memory with the next.
    return np.array(evaluations.binding(leaves)(t, z))


def _evaluate_vjp(argnums, dz, args, kwargs):
    evaluations, t, z, *leaves = args
    n, p = prod(evaluations.shape), num_params(leaves)
    f_augmented = evaluations.augmented(leaves)

    def vjp(dz_bar):
        s = anp.concatenate([z, -dz_bar, np.zeros(p + 1)])
        _, z_bar, theta_bar, t_bar = split_augmented(f_augmented(t, s, *leaves), n, p)
        bars = [None, t_bar, z_bar, *unpack_like(theta_bar, leaves)]
        return [bars[argnum] for argnum in argnums]

    return vjp


defvjp_argnums(_evaluate, _evaluate_vjp)


class _LastBinding:
    """Binds on first use and whenever the parameters are other objects than the last time."""

    def __init__(self, dynamics, shape, structure):
        self.dynamics, self.shape, self.structure = dynamics, shape, structure
        self.leaves, self.rhs = None, None

    def __call__(self, leaves):
        if self.leaves is None or any(new is not old for new, old in zip(leaves, self.leaves)):
            self.leaves, self.rhs = leaves, self.dynamics.bind(self.shape, self.structure, leaves)
        return self.rhs


def num_params(leaves):
    """Total number of parameters in leaves."""
    return sum(anp.size(leaf) for leaf in leaves)


def leaf_tuple(leaves):
    """The Structure of a plain tuple of leaves, in which augmented systems take their parameters."""
    return Structure(tuple, len(leaves), (LEAF,) * len(leaves), len(leaves))


def split_augmented(s, n, p):
    """z (n), a (n), a_theta (p) and the scalar a_t of an augmented state s (2n + p + 1)."""
    return s[:n], s[n : 2 * n], s[2 * n : 2 * n + p], s[2 * n + p]


def unpack_like(flat, leaves):
    """Slices of flat with the shapes of leaves."""
    parts, start = [], 0
    for leaf in leaves:
        size = anp.size(leaf)
        parts.append(anp.reshape(flat[start : start + size], anp.shape(leaf)))
        start += size
    return parts


class AutogradDynamics(Dynamics):
    """func(t, y, params) written in autograd.numpy; y has the shape of y0, params the user's nesting."""

    def __init__(self, func):
        self.func = func

    def bind(self, shape, structure, leaves):
        func, params = self.func, structure.unflatten(leaves)
        writable = False

        def rhs(t, z):
            nonlocal writable
            y = z.reshape(shape)
            if writable:
                y = y.copy()
            else:
                y.flags.writeable = False
            try:
                dy = func(t, y, params)
            except ValueError as error:
                # NumPy's refusal to write into the integrator's own memory: such a func gets copies from now on.
                if writable or "read-only" not in str(error):
                    raise
                writable = True
                return rhs(t, z)
            if type(dy) is np.ndarray and dy.dtype == np.float64 and dy.shape == shape:
                return dy.reshape(-1)
            return _checked_derivative(dy, shape).reshape(-1)

        return rhs

    def bind_jacobian(self, shape, structure, leaves):
        func, params = self.func, structure.unflatten(leaves)
        n = prod(shape)

        def jacobian(t, z):
            _, pullback = vjp(lambda y: _traced_derivative(func(t, y, params), shape), z.reshape(shape))
            return np.stack([np.reshape(pullback(row.reshape(shape))[0], -1) for row in np.eye(n)])

        return jacobian

    def augmented(self, shape, structure):
        func, n = self.func, prod(shape)

        def augmented_func(t, s, leaves):
            z, a = s[:n].reshape(shape), s[n : 2 * n].reshape(shape)
            f, pullback = vjp(
                lambda t, y, *leaves: _traced_derivative(func(t, y, structure.unflatten(leaves)), shape), t, z, *leaves
            )
            t_bar, z_bar, *leaf_bars = pullback(-a)
            parts = [f, z_bar, *leaf_bars, t_bar]
            if any(isbox(part) for part in parts):
                return anp.concatenate([anp.reshape(part, -1) for part in parts])
            # autograd's own concatenate costs as much as the rest of a small evaluation.
            return np.concatenate([np.reshape(part, -1) for part in parts])

        return AutogradDynamics(augmented_func)

    def differentiable(self, shape, structure):
        def f(t, z, *leaves):
            dy = self.func(t, anp.reshape(z, shape), structure.unflatten(leaves))
            return anp.reshape(_traced_derivative(dy, shape), -1)

        return f


def vjp(fun, *args):
    """fun(*args) and its pullback: cotangent -> tuple of cotangents, one for each of args.

    autograd.make_vjp with several separate arguments instead of one container, whose bookkeeping would cost more than
    small dynamics themselves. args may be boxes of an outer trace, so this nests as autograd does.
    """
    roots = [VJPNode.new_root() for _ in args]
    with trace_stack.new_trace() as trace:
        end = fun(*[new_box(arg, trace, root) for arg, root in zip(args, roots)])
    depends = isbox(end) and end._trace == trace

    def pullback(end_bar):
        bars = _backward_pass(end_bar, end._node) if depends else {}
        return tuple(bars[root] if root in bars else np.zeros(anp.shape(arg)) for root, arg in zip(roots, args))

    return (end._value if depends else end), pullback


def _backward_pass(end_bar, end_node):
    bars = {end_node: (end_bar, False)}
    root_bars = {}
    for node in toposort(end_node):
        bar = bars.pop(node)
        if not node.parents:
            root_bars[node] = bar[0]
        for parent, parent_bar in zip(node.parents, node.vjp(bar[0])):
            bars[parent] = add_outgrads(bars.get(parent), parent_bar)
    return root_bars


def _checked_derivative(dy, shape):
    """dy as a float64 array of the given shape, or an error that says what func should have returned."""
    if isbox(dy):
        raise TypeError(
            "func used a value that is being differentiated but did not come through t, y or params; pass such values in params"
        )
    if dy is None:
        raise TypeError(f"func returned None; it must return dy/dt, an array of shape {shape}")
    try:
        array = np.asarray(dy)
    except ValueError as error:
        raise ValueError(f"func must return an array of shape {shape}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"func must return real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"func must return an array of the shape of y, {shape}, got {array.shape}")
    return array.astype(np.float64, copy=False)


def _traced_derivative(dy, shape):
    """dy where it may be a box: sequences of boxes become one, and the shape is checked."""
    if isinstance(dy, (list, tuple)):
        try:
            dy = anp.array(dy)
        except ValueError as error:
            raise ValueError(f"func must return an array of shape {shape}: {error}") from error
    if not isbox(dy):
        return _checked_derivative(dy, shape)
    if anp.shape(dy) != shape:
        raise ValueError(f"func must return an array of the shape of y, {shape}, got {anp.shape(dy)}")
    return dy

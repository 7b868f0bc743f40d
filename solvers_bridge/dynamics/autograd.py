"""Dynamics written in autograd.numpy, and any dynamics as an autograd primitive."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp_argnums, defvjp_argnums, primitive
from autograd.tracer import isbox

from ..adjoint import Augmented
from ..nested import LEAF, Layout, is_differentiable
from .base import Dynamics, leaf_tuple, num_params, unpack_like
from .tape import vjp


class AutogradDynamics(Dynamics):
    """func(t, y, params) written in autograd.numpy; y is nested and shaped as y0, params the user's nesting."""

    def __init__(self, func):
        self.func = func

    def bind(self, layout, structure, leaves):
        func, params = self.func, structure.unflatten(leaves)
        plain = layout.shapes[0] if layout.structure is LEAF else None
        writable = False

        def rhs(t, z):
            nonlocal writable
            if writable:
                z = z.copy()
            # A view of the integrator's own memory, which func may read but not write.
            y = z.reshape(plain) if plain is not None else layout.unpack(z if writable else _read_only(z), np.reshape)
            if plain is not None and not writable:
                y.flags.writeable = False
            try:
                dy = func(t, y, params)
            except ValueError as error:
                # NumPy's refusal to write into the integrator's own memory: such a func gets copies from now on.
                if writable or "read-only" not in str(error):
                    raise
                writable = True
                return rhs(t, z)
            if type(dy) is np.ndarray and dy.dtype == np.float64 and dy.shape == plain:
                return dy.reshape(-1)
            return layout.pack(_checked_derivative(dy, layout), np.reshape, np.concatenate)

        return rhs

    def bind_jacobian(self, layout, structure, leaves):
        f, n = differentiable(self, layout, structure), layout.size

        def jacobian(t, z):
            _, pullback = vjp(lambda z: f(t, z, *leaves), z)
            return np.stack([pullback(row)[0] for row in np.eye(n)])

        return jacobian

    def augmented(self, layout, structure):
        f, n, shape = differentiable(self, layout, structure), layout.size, (layout.size,)
        if layout.structure is LEAF:
            # Traced at the shape that func sees: a reshape on the tape would cost as much as a small evaluation.
            shape = layout.shapes[0]

            def f(t, y, *leaves):
                return _traced_array(self.func(t, y, structure.unflatten(leaves)), shape)

        def augmented_func(t, s, leaves):
            z, a = s[:n].reshape(shape), s[n : 2 * n].reshape(shape)
            value, pullback = _vjp_of_floats(f, _not_a_python_float(t), z, leaves)
            t_bar, z_bar, *leaf_bars = pullback(-a)
            parts = [value, z_bar, *leaf_bars, t_bar]
            if any(isbox(part) for part in parts):
                return anp.concatenate([anp.reshape(part, -1) for part in parts])
            # autograd's own concatenate costs as much as the rest of a small evaluation.
            return np.concatenate([np.reshape(part, -1) for part in parts])

        return AutogradDynamics(augmented_func)

    def tangent(self, layout, structure):
        return AutogradDynamics(_tangent_function(self, layout, structure))


def _not_a_python_float(t):
    """t; of a Python float, an infinite derivative by t would be a ZeroDivisionError."""
    return np.float64(t) if type(t) is float else t


def _read_only(z):
    view = z.view()
    view.flags.writeable = False
    return view


def _vjp_of_floats(f, t, z, leaves):
    """Value and pullback of f(t, z, *leaves) with respect to t, z and those of leaves that are floating-point."""
    floats = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]
    if len(floats) == len(leaves):
        return vjp(f, t, z, *leaves)

    def of_floats(t, z, *values):
        every = list(leaves)
        for i, value in zip(floats, values):
            every[i] = value
        return f(t, z, *every)

    return vjp(of_floats, t, z, *(leaves[i] for i in floats))


def _tangent_function(dynamics, layout, structure):
    """(t, [z, v], (*leaves, *directions)) -> [f, df/dz v + df/dtheta w], by differentiating the pullback, linear, at zero."""
    f, n = differentiable(dynamics, layout, structure), layout.size

    def tangent_func(t, s, params):
        leaves, directions = params[: structure.count], params[structure.count :]
        z, v = s[:n], s[n:]
        t = _not_a_python_float(t)
        value, pullback = _vjp_of_floats(f, t, z, leaves)
        # The pullback is linear in its cotangent u, so the derivative of <pullback(u), direction> by u is the tangent.
        _, transpose = vjp(lambda u: _inner(pullback(u)[1:], (v, *directions)), np.zeros(n))
        return anp.concatenate([value, transpose(1.0)[0]])

    return tangent_func


def _inner(bars, directions):
    return sum(anp.sum(bar * anp.reshape(direction, anp.shape(bar))) for bar, direction in zip(bars, directions))


def differentiable(dynamics, layout, structure):
    """f(t, z, *leaves) on flat states for autograd to differentiate, to any order: AutogradDynamics through the tape that records
    its func, every other kind as a primitive whose derivatives are its adjoint and tangent systems."""
    if isinstance(dynamics, AutogradDynamics):

        def f(t, z, *leaves):
            dy = dynamics.func(t, layout.unpack(own(z), anp.reshape), structure.unflatten(leaves))
            return own(layout.pack(_traced_derivative(dy, layout), anp.reshape, anp.concatenate))

        return f
    evaluations = _Evaluations(dynamics, layout, structure)
    return lambda t, z, *leaves: _evaluate(evaluations, t, z, *leaves)


def own(z):
    """z; of a bare array, which func may write into now or later, a copy. Into autograd's boxes nobody can write."""
    return z if isbox(z) else np.array(z)


class _Evaluations:
    """Evaluations of dynamics during one solve, and those of their adjoint and tangent systems, if a derivative asks for them."""

    def __init__(self, dynamics, layout, structure):
        self.dynamics, self.layout, self.structure = dynamics, layout, structure
        self.leaves, self.rhs = None, None
        self.f_augmented, self.f_tangent = None, None

    def __call__(self, t, z, leaves):
        # Bound on first use, and whenever the parameters are other objects than the last time.
        if self.leaves is None or any(new is not old for new, old in zip(leaves, self.leaves)):
            self.leaves, self.rhs = leaves, self.dynamics.bind(self.layout, self.structure, leaves)
        return self.rhs(t, z)

    def augmented(self, leaves):
        """f(t, s, *leaves) of the augmented system."""
        if self.f_augmented is None:
            augmented = self.dynamics.augmented(self.layout, self.structure)
            size = Augmented(self.layout.size, num_params(leaves)).size
            self.f_augmented = differentiable(augmented, Layout.flat(size), leaf_tuple(len(leaves)))
        return self.f_augmented

    def tangent(self, count):
        """f(t, [z, v], *leaves, *directions) of the tangent system, with count parameters in all."""
        if self.f_tangent is None:
            tangent = self.dynamics.tangent(self.layout, self.structure)
            self.f_tangent = differentiable(tangent, Layout.flat(2 * self.layout.size), leaf_tuple(count))
        return self.f_tangent


# One primitive for all dynamics: autograd keeps every primitive, with all that it refers to, for ever.
@primitive
def _evaluate(evaluations, t, z, *leaves):
    # The copy: autograd's tape keeps it, and an evaluation may share memory with the next.
    return np.array(evaluations(t, z, leaves))


def _evaluate_vjp(argnums, dz, args, kwargs):
    evaluations, t, z, *leaves = args
    augmented = Augmented(evaluations.layout.size, num_params(leaves))
    f_augmented = evaluations.augmented(leaves)

    def pullback(dz_bar):
        s = augmented.join(z, -dz_bar, np.zeros(augmented.p), 0.0, anp)
        _, z_bar, theta_bar, t_bar = augmented.split(f_augmented(t, s, *leaves))
        bars = [None, t_bar, z_bar, *unpack_like(theta_bar, leaves, anp.reshape)]
        return [bars[argnum] for argnum in argnums]

    return pullback


def _evaluate_jvp(argnums, directions, dz, args, kwargs):
    evaluations, t, z, *leaves = args
    given = dict(zip(argnums, directions))
    floats = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]
    w = [given.get(3 + i, np.zeros(np.shape(leaves[i]))) for i in floats]
    s = anp.concatenate([z, given.get(2, np.zeros(evaluations.layout.size))])
    n = evaluations.layout.size
    dz_dot = evaluations.tangent(len(leaves) + len(w))(t, s, *leaves, *w)[n:]
    if 1 in given:
        augmented = Augmented(n, num_params(leaves))
        f_augmented = evaluations.augmented(leaves)
        # df/dt, component by component, from the augmented system with a unit cotangent.
        rows = [f_augmented(t, augmented.join(z, -e, np.zeros(augmented.p), 0.0, anp), *leaves)[-1] for e in np.eye(n)]
        dz_dot = dz_dot + given[1] * anp.array(rows)
    return dz_dot


defvjp_argnums(_evaluate, _evaluate_vjp)
defjvp_argnums(_evaluate, _evaluate_jvp)


def _checked_derivative(dy, layout):
    """Leaves of dy as float64 arrays of the layout's shapes, or an error that says what func should have returned."""
    return [_checked_array(leaf, shape) for leaf, shape in zip(layout.leaves_of(dy), layout.shapes)]


def _traced_derivative(dy, layout):
    """Leaves of dy where they may be boxes: sequences of boxes become one, and shapes are checked."""
    return [_traced_array(leaf, shape) for leaf, shape in zip(layout.leaves_of(dy), layout.shapes)]


def _checked_array(dy, shape):
    if isbox(dy):
        raise TypeError(
            "func used a value that is being differentiated but did not come through t, y or params; pass such values in params"
        )
    if dy is None:
        raise TypeError(f"func returned None; it must return dy/dt, an array of shape {shape}")
    if any(np.ma.is_masked(part) for part in (dy if isinstance(dy, (list, tuple)) else (dy,))):
        raise TypeError(
            "func returned a masked array, whose mask would be ignored; it must return a plain one, by .filled(value)"
        )
    try:
        array = np.asarray(dy)
    except ValueError as error:
        raise ValueError(f"func must return an array of shape {shape}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"func must return real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"func must return an array of the shape of y, {shape}, got {array.shape}")
    return array.astype(np.float64, copy=False)


def _traced_array(dy, shape):
    if isinstance(dy, (list, tuple)):
        try:
            dy = anp.array(dy)
        except ValueError as error:
            raise ValueError(f"func must return an array of shape {shape}: {error}") from error
    if not isbox(dy):
        return _checked_array(dy, shape)
    if anp.shape(dy) != shape:
        raise ValueError(f"func must return an array of the shape of y, {shape}, got {anp.shape(dy)}")
    return dy

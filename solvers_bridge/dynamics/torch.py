"""PyTorch dynamics: functions of flat tensors for f and its adjoint system, and what else such a function uses."""

from __future__ import annotations

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .base import Dynamics
from .torch_graph import Linked, Used, other_leaves


class TorchDynamics(Dynamics):
    """func(t, z) in PyTorch, on flat states z (n,) of one dtype and device; the parameters are tensors that func holds.

    Parameters
    ----------
    func : t is a scalar tensor, z (n,) flat, both of dtype and device; returns (n,).
    params : floating-point tensors that func uses, with respect to which gradients are taken; the leaves that methods are given
        stand for them and are not read.
    dtype, device : of what func is given.
    wants_t : whether func is differentiated with respect to t.
    is_complete : whether params are meant to be all that func uses; if it uses another, its derivatives raise ValueError.
    directions : tensors, of which each is that in which a param moves in the tangent system.
    takes_gradients : whether func asks PyTorch for gradients with respect to what it is given.
    """

    def __init__(self, func, params, dtype, device, wants_t=True, is_complete=False, directions=(), takes_gradients=False):
        self.directions = tuple(directions)
        self.func, self.params, self.wants_t, self.is_complete = func, tuple(params), wants_t, is_complete
        self.used, self.takes_gradients = Used(self.params), takes_gradients
        self.torch_dtype, self.device = dtype, device
        self.dtype = np.dtype(str(dtype).removeprefix("torch."))

    def bind(self, layout, structure, leaves):
        def rhs(t, z):
            with torch.no_grad():
                return _as_array(self.func(self.time(t), self._state(z)))

        return rhs

    def bind_jacobian(self, layout, structure, leaves):
        def jacobian(t, z):
            t = self.time(t)
            return _as_array(torch.autograd.functional.jacobian(lambda z: self.func(t, z), self._state(z)))

        return jacobian

    def augmented(self, layout, structure):
        func = _augmented_function(self.func, self.used, layout.size, self.wants_t, self.is_complete)
        about = (self.params, self.torch_dtype, self.device, self.wants_t, self.is_complete)
        return TorchDynamics(func, *about, takes_gradients=True)

    def along(self, directions):
        """The same with directions for its tangent system: their values, for which tensors of their own stand in it."""
        own = [direction.detach().requires_grad_() for direction in directions]
        return TorchDynamics(self.func, self.params, self.torch_dtype, self.device, self.wants_t, directions=own)

    def tangent(self, layout, structure):
        func, params = _tangent_function(self.func, self.used, self.directions, layout.size), (*self.params, *self.directions)
        return TorchDynamics(func, params, self.torch_dtype, self.device, self.wants_t, takes_gradients=True)

    def traced(self, t, z):
        """f (n,) in float64 at tensors t and z (n,) of float64, in the graph of whatever is being differentiated."""
        t, z = self.time(t), z.to(self.torch_dtype)
        if not self.takes_gradients:
            # Copies, into which func may write.
            return self.func(t.clone(), z.clone()).to(torch.float64)
        # z may depend on params or t in the graph around: through it, gradients with respect to them would count twice.
        own = t.detach().requires_grad_(self.wants_t), z.detach().requires_grad_()
        with torch.enable_grad():
            output = self.func(*own)
        return Linked.apply((output, own, self.used), t, z, *self.params).to(torch.float64)

    def time(self, t):
        """t, a number or a tensor of float64, as a scalar tensor for func."""
        return torch.as_tensor(t, dtype=torch.float64, device=self.device).to(self.torch_dtype)

    def _state(self, z):
        # A copy: func may keep what it is given, and the integrator's memory changes.
        return torch.tensor(z, dtype=self.torch_dtype, device=self.device)


def under_present_autocast(func, device):
    """func under the autocast of now on device, wherever it is called: backward, say, comes after torch.autocast has ended."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind):
        return func

    def present():
        return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)

    wanted = present()

    def under_it(t, z):
        if present() == wanted:
            return func(t, z)
        with torch.autocast(kind, wanted or None, enabled=bool(wanted)):
            return func(t, z)

    return under_it


def _as_array(tensor):
    return tensor.detach().to("cpu", torch.float64).numpy()


def _augmented_function(func, used, n, wants_t, is_complete):
    """(t, s) -> [f, -a df/dz, -a df/dtheta, -a df/dt], flat (see Dynamics.augmented); differentiable where traced."""

    def augmented(t, s):
        is_traced = torch.is_grad_enabled()
        z, a = s[:n], s[n : 2 * n]
        if not is_traced:
            t, z = t.detach().requires_grad_(wants_t), z.detach().requires_grad_()
        with torch.enable_grad():
            # Clones, into which func may write.
            f = func(t.clone(), z.clone())
            inputs = (z, *used.tensors, t)
            if is_complete and not is_traced and f.requires_grad and other_leaves(f, inputs):
                _check_known(func, t, z, used.tensors)
            z_bar, t_bar, *theta_bars = used.gradients(f, (z, t), -a.to(f.dtype), traced=is_traced)
            bars = (z_bar, *theta_bars, t_bar)
            parts = [torch.zeros_like(value) if bar is None else bar for value, bar in zip(inputs, bars)]
        return torch.cat([part.reshape(-1).to(device=s.device) for part in (f, *parts)])

    return augmented


def _tangent_function(func, used, directions, n):
    """(t, [z, v]) -> [f, df/dz v + df/dtheta w], flat, for the directions w of params; differentiable where traced."""

    def tangent(t, s):
        is_traced = torch.is_grad_enabled()
        z, v = s[:n], s[n:]
        if not (is_traced and z.requires_grad):
            z = z.detach().requires_grad_()
        with torch.enable_grad():
            f = func(t.clone(), z.clone())
            # The pullback is linear in its cotangent u, so the derivative of <pullback(u), direction> by u is the tangent.
            u = torch.zeros_like(f).requires_grad_()
            bars = used.gradients(f, (z,), u, traced=True)
            inner = sum(torch.sum(bar * w.to(bar)) for bar, w in zip(bars, (v, *directions)) if bar is not None)
            if not isinstance(inner, torch.Tensor) or not inner.requires_grad:
                return torch.cat([f, torch.zeros_like(f)])
            (f_dot,) = torch.autograd.grad(inner, u, allow_unused=True, create_graph=is_traced, materialize_grads=True)
        return torch.cat([f, f_dot])

    return tangent


def tensors_used_by(func, t, z):
    """(used, constants): tensors with and without a gradient that func(t, z) used and that were not made of t and z on the way.

    t and z have no gradient themselves, and func may write into them. What else it writes into is no constant.
    """
    with torch.enable_grad(), _Watch(t, z) as watch:
        f = func(t, z)
    used = list(watch.found.values())
    constants = [tensor for tensor, version in watch.constants.values() if tensor._version == version]
    return used + [leaf for leaf in other_leaves(f, used) if id(leaf) not in watch.made], constants


def _check_known(func, t, z, params):
    """ValueError where func(t, z) uses a tensor that is none of params and was not made in it."""
    known = {id(param) for param in params}
    used, _ = tensors_used_by(func, t.detach().clone(), z.detach().clone())
    if any(id(tensor) not in known for tensor in used):
        raise ValueError(
            f"func uses at t = {float(t):.6g} a tensor with a gradient that it did not use at the first time, so that its "
            "gradient would be missing: give all such tensors to odeint_adjoint as adjoint_params"
        )


class _Watch(TorchFunctionMode):
    """Sees the arguments of every PyTorch function; `found` are those that need a gradient and came from outside.

    `constants` are the others from outside, each with its version before it was first used; own are what func is given.
    """

    def __init__(self, *own):
        super().__init__()
        self.found, self.constants = {}, {}
        self.made = {id(tensor): tensor for tensor in own}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        for tensor in _tensors((args, kwargs)):
            if not (tensor.requires_grad or tensor.is_inference() or id(tensor) in self.made):
                self.constants.setdefault(id(tensor), (tensor, tensor._version))
        value = func(*args, **(kwargs or {}))
        for tensor in _tensors((args, kwargs)):
            if tensor.requires_grad and id(tensor) not in self.made:
                self.found[id(tensor)] = tensor
        # Kept, so that no later tensor has the same id.
        known = (self.found, self.constants)
        self.made.update({id(tensor): tensor for tensor in _tensors(value) if not any(id(tensor) in ids for ids in known)})
        return value


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))

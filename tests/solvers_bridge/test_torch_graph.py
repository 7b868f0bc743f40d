"""Derivatives through solvers_bridge.torch where what is differentiated was made of something else that is; needs PyTorch."""

from functools import partial

import numpy as np
import pytest

from tests.helpers import some_fast

torch = pytest.importorskip("torch")
door = pytest.importorskip("solvers_bridge.torch")

WAYS = {
    "dopri5": (door.odeint, {"method": "dopri5"}),
    "adams": (door.odeint, {"method": "adams"}),
    "rk4": (door.odeint, {"method": "rk4", "options": {"step_size": 0.05}}),
    "adjoint by dopri5": (door.odeint_adjoint, {"method": "dopri5"}),
    "adjoint by lsoda": (door.odeint_adjoint, {"method": "lsoda"}),
    "adjoint by rk4": (door.odeint_adjoint, {"method": "rk4", "options": {"step_size": 0.05}}),
    "known states": (door.odeint_adjoint, {"method": "adams", "adjoint_options": {"reconstruction": "interpolate"}}),
}


def solved(way, func, y0, t, params):
    odeint, means = WAYS[way]
    odeint = partial(odeint, adjoint_params=params) if odeint is door.odeint_adjoint else odeint
    return odeint(func, y0, t, rtol=1e-9, atol=1e-9, **means)[-1]


def number(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_a_tensor_and_what_was_made_of_it_have_each_its_own_part_of_the_gradient(way, order):
    k = number(0.7)
    w = 2 * k
    v = torch.exp(w) * k
    params = [(k, w, v)[i] for i in order]

    def func(t, y):
        # The order in which func uses them is that in which odeint finds them.
        return sum({id(k): 3 * k, id(w): -w * y, id(v): v}[id(param)] for param in params)

    y = solved(way, func, torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 0.6], dtype=torch.float64), params)
    exact = torch.exp(-0.6 * w) + (v + 3 * k) / w * (1 - torch.exp(-0.6 * w))
    found, expected = (torch.autograd.grad(value.sum(), (v, w, k), create_graph=True) for value in (y, exact))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    found, expected = (torch.autograd.grad(bars[1] + bars[2], (v, w, k), retain_graph=True) for bars in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_what_another_tensor_was_made_of_and_is_used_only_later_has_its_part_too():
    k = number(0.7)
    w = 2 * k
    y = door.odeint(
        lambda t, y: -w * y + (k if t > 0.5 else 0.0),
        torch.ones(1, dtype=torch.float64),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        method="dopri5",
        options={"jump_t": [0.5]},
    )[-1]
    exact = torch.exp(-w) + k / w * (1 - torch.exp(-w / 2))
    np.testing.assert_allclose(
        *(torch.autograd.grad(value.sum(), k, retain_graph=True)[0].item() for value in (y, exact)), rtol=1e-6
    )


def test_a_tensor_that_is_given_twice_has_one_gradient():
    k = number(0.7)
    y = solved(
        "adjoint by dopri5", lambda t, y: -k * y, torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 0.6]), (k, k)
    ).sum()
    np.testing.assert_allclose(torch.autograd.grad(y, k)[0].item(), -0.6 * np.exp(-0.42), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hook", [lambda bar: 2 * bar, lambda bar: torch.clamp(bar, -0.1, 0.1)], ids=["twice", "clamped"])
def test_a_hook_sees_the_whole_gradient_once(way, hook):
    found = []
    for hooked in (False, True):
        k = number(0.7)
        w = torch.sin(k)
        for tensor in (k, w) if hooked else ():
            tensor.register_hook(lambda bar: found.append(bar) or hook(bar))
        y = solved(way, lambda t, y: -w * y + k, torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 0.6]), (w, k)).sum()
        (w_bar,) = torch.autograd.grad(y, w, retain_graph=True) if not hooked else (None,)
        y.backward()
        if not hooked:
            total, of_w = k.grad, w_bar
    # What came to w was changed before it went on to k.
    at_k = total - of_w * torch.cos(k.detach()) + hook(of_w) * torch.cos(k.detach())
    torch.testing.assert_close([*found, k.grad], [of_w, at_k, hook(at_k)], rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "way, order",
    some_fast(
        [(way, order) for way in WAYS if way != "known states" for order in ("ttt", "tkk", "ktk", "syt", "kst")],
        ("adjoint by rk4", "tkk"), ("dopri5", "syt"),
    ),
)  # fmt: skip
def test_third_derivatives_with_respect_to_times(way, order):
    # With a graph for a fourth, which is not asked for: it, too, ended only when memory did.
    inputs = {"k": number(0.7), "y": number(0.8), "s": number(0.1), "t": number(0.6)}
    k, y0, s, t = inputs.values()
    y = solved(way, lambda t, y: -k * t * y, y0.reshape(1), torch.stack([s, t]), (k,)).sum()
    exact = y0 * torch.exp(-k * (t**2 - s**2) / 2)
    for name in order:
        y, exact = (torch.autograd.grad(value, inputs[name], create_graph=True)[0] for value in (y, exact))
    # Those of the steps of a fixed grid by their sizes are off by squares of them.
    np.testing.assert_allclose(y.item(), exact.item(), rtol=1e-3)

"""solvers_bridge.torch: torchdiffeq's signatures with our integrators; run where PyTorch and torchdiffeq are installed."""

import sys
import warnings
from functools import partial

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import solvers_bridge
from solvers_bridge import GradientWarning, SolverError, record_solves
from tests.helpers import some_fast

METHODS = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau", "euler", "midpoint", "rk4", "rk4_classic")


torch = pytest.importorskip("torch")
door = pytest.importorskip("solvers_bridge.torch")
T = torch.tensor([0.0, 0.5, 1.3], dtype=torch.float64)


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(dtype)


class ODE(torch.nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.net = net(dtype)

    def forward(self, t, y):
        return self.net(y) * torch.cos(t)


def start(dtype=torch.float64):
    return torch.tensor([[1.0, -0.4, 0.5], [0.2, 0.1, -1.0]], dtype=dtype, requires_grad=True)


def gradients(odeint, func, t=T, **means):
    y0, t = start(), t.clone().requires_grad_()
    y = odeint(func, y0, t, **means)
    return [y.detach(), *torch.autograd.grad(torch.sin(y).sum(), [y0, t, *func.parameters()])]


def assert_close(ours, theirs, atol):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


@pytest.mark.parametrize("method", ["adams", "bdf", "lsoda", "dopri5", "dop853", "radau"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_gradients_are_torchdiffeqs(method, name):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    func, means = ODE(), {"rtol": 1e-10, "atol": 1e-10}
    theirs = gradients(torchdiffeq.odeint_adjoint, func, method="dopri5", **means)
    assert_close(gradients(getattr(door, name), func, method=method, **means), theirs, 1e-6)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize(
    "options",
    # Where an output time falls on the grid, torchdiffeq's gradient with respect to it is lost: here none does but the ends.
    [None, {"step_size": 0.23}, {"step_size": 0.23, "interp": "cubic"}, {"step_size": 0.23, "perturb": True},
     {"grid_constructor": lambda f, y0, t: torch.cat([t[0] + (t[-1] - t[0]) * torch.linspace(0, 0.9, 8).double(), t[-1:]])}],
    ids=["outputs", "steps", "cubic", "perturbed", "constructor"],
)  # fmt: skip
def test_fixed_grids_are_torchdiffeqs_to_rounding(method, options):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    for t in (T, T.flip(0)):
        means = {"method": method, "options": options}
        assert_close(gradients(door.odeint, ODE(), t, **means), gradients(torchdiffeq.odeint, ODE(), t, **means), 1e-12)
        states = door.odeint_adjoint(ODE(), start(), t, **means)
        assert_close([states], [torchdiffeq.odeint_adjoint(ODE(), start(), t, **means)], 1e-12)


def test_rk4_classic_is_the_classical_method():
    ys = door.odeint(lambda t, y: t * y, torch.ones(1, dtype=torch.float64), T, method="rk4_classic")
    expected = solvers_bridge.odeint(lambda t, y, _: t * y, np.ones(1), T.numpy(), method="rk4")
    np.testing.assert_allclose(ys.numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_states_and_statistics_are_those_of_odeint(method):
    func = ODE().requires_grad_(False)
    weights = [p.numpy() for p in func.parameters()]

    def in_numpy(t, y, _):
        return (np.tanh(y @ weights[0].T + weights[1]) @ weights[2].T + weights[3]) * np.cos(t)

    with record_solves() as solves:
        ys = door.odeint(func, start().detach(), T, method=method)
    expected = solvers_bridge.odeint(
        in_numpy, start().detach().numpy(), T.numpy(), method={"rk4": "rk4_38", "rk4_classic": "rk4"}.get(method, method),
        rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    np.testing.assert_allclose(ys.numpy(), expected, rtol=1e-8 if method in ("adams", "bdf", "lsoda", "radau") else 1e-12)
    assert solves[0].direction == "forward" and solves[0].nfe > 0


@pytest.mark.parametrize("method", ["adams", "dopri5", "rk4"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_second_derivatives(method, name):
    """Of a scalar problem, y = y0 exp(a (t - t0)), whose derivatives are known: PyTorch's gradgradcheck is about differences."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    odeint = partial(door.odeint_adjoint, adjoint_params=(a,)) if name == "odeint_adjoint" else door.odeint
    options = {"step_size": 0.01} if method == "rk4" else None
    y = odeint(lambda t, y: a * y, y0, T, method=method, rtol=1e-9, atol=1e-9, options=options)[-1]
    y_a, y_0 = torch.autograd.grad(y.sum(), (a, y0), create_graph=True)
    y_aa, y_a0 = torch.autograd.grad(y_a, (a, y0))
    s, growth = 1.3, np.exp(0.7 * 1.3)
    expected = [1.3 * growth * s, growth, 1.3 * growth * s**2, growth * s]
    np.testing.assert_allclose([float(x) for x in (y_a, y_0, y_aa, y_a0)], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "method, options", [("adams", {"jump_t": [0.5]}), ("dopri5", {"jump_t": [0.5]}), ("rk4", {"step_size": 0.1})]
)
def test_a_tensor_that_func_uses_only_later_is_not_left_without_its_gradient(method, options):
    first, later = (torch.tensor(rate, dtype=torch.float64, requires_grad=True) for rate in (0.5, 2.0))

    def func(t, y):
        return -(first if t < 0.5 else later) * y

    problem = (func, torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64))
    end = door.odeint(*problem, method=method, options=options)[-1].sum()
    if method == "adams":  # all others go through PyTorch's own graph
        with pytest.raises(ValueError, match="adjoint_params"):
            end.backward()
        end = door.odeint_adjoint(*problem, method=method, options=options, adjoint_params=(first, later))[-1].sum()
    end.backward()
    rtol = 0.1 if method == "rk4" else 1e-5
    np.testing.assert_allclose([float(first.grad), float(later.grad)], -0.5 * float(end.detach()), rtol=rtol)


def test_a_tensor_that_func_makes_for_itself_is_none_that_it_uses_later():
    """A Jacobian-vector product by two vector-Jacobian ones, whose dummy cotangent is new in every call."""
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def func(t, y):
        with torch.enable_grad():
            u, x = torch.ones_like(y, requires_grad=True), y.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(torch.sin(x), x, u, create_graph=True)
        return -rate * y + 0.0 * pulled.sum()

    times, y0 = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    door.odeint(func, y0, times, method="adams", rtol=1e-8, atol=1e-8)[-1].sum().backward()
    np.testing.assert_allclose(float(rate.grad), -np.exp(-0.7), rtol=1e-6)


def test_gradients_of_what_func_holds_and_of_what_it_captured():
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    square, y0 = weight**2, torch.ones(1, dtype=torch.float64)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x * w

        @staticmethod
        def backward(ctx, bar):
            x, w = ctx.saved_tensors
            return bar * w, (bar * x).sum()

    # The square, made outside; a leaf that only a function of the user's own was given.
    for func, expected in ((lambda t, y: -square * y, -4 * np.exp(-4)), (lambda t, y: -Own.apply(y, weight), -np.exp(-2))):
        y = door.odeint(func, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), method="adams")[-1]
        (bar,) = torch.autograd.grad(y.sum(), weight, retain_graph=True)
        np.testing.assert_allclose(float(bar), expected, rtol=1e-5)


def test_a_tuple_of_states_with_tolerances_of_its_own():
    def func(t, y):
        a, b = y
        return -a, 0.5 * b + t

    y0 = (torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[1.0]], dtype=torch.float64))
    a, b = door.odeint(func, y0, T, rtol=(1e-8, 1e-6), atol=(1e-9, 1e-7), method="lsoda")
    # As in torchdiffeq, the tensors of a tuple are computed with in the type that holds them all.
    assert a.shape == (3, 2) and b.shape == (3, 1, 1) and a.dtype == b.dtype == torch.float64
    torch.testing.assert_close(a[-1].detach(), torch.tensor([1.0, 2.0], dtype=torch.float64) * np.exp(-1.3))
    a[-1].sum().backward()
    torch.testing.assert_close(y0[0].grad, torch.full((2,), np.exp(-1.3), dtype=torch.float32))


def test_a_float32_module_gets_its_own_dtype_and_gives_it_back():
    seen = set()

    class Seen(ODE):
        def forward(self, t, y):
            seen.update((t.dtype, y.dtype))
            return super().forward(t, y)

    func, y0 = Seen(torch.float32), start(torch.float32)
    y = door.odeint_adjoint(func, y0, T.float(), method="adams", rtol=1e-5, atol=1e-5)
    y.sum().backward()
    assert seen == {torch.float32} and y.dtype == y0.grad.dtype == func.net[0].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["adams", "radau", "dopri5"])
def test_func_is_never_asked_for_the_other_side_of_a_jump(dtype, method):
    def func(t, y):
        return -torch.ones_like(y) if t < 0.3 else torch.ones_like(y)

    y0, jump_t = torch.zeros(1, dtype=dtype, requires_grad=True), torch.tensor([0.3], dtype=dtype)
    with record_solves() as solves:
        y = door.odeint(func, y0, torch.tensor([0.0, 1.0], dtype=dtype), method=method, options={"jump_t": jump_t})
    torch.testing.assert_close(y[-1].detach(), torch.tensor([0.4], dtype=dtype), rtol=0, atol=1e-6)
    assert sum(solve.nfe for solve in solves) < 80
    y[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.ones_like(y0))


@pytest.mark.parametrize("method, options", [("adams", None), ("dopri5", None), ("rk4", {"step_size": 0.05, "interp": "cubic"})])
@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_an_event_and_its_gradients(method, options, interface):
    """A ball thrown up with speed v lands at t0 + 2 v / g, with speed -v."""
    g = torch.tensor(9.81, dtype=torch.float64, requires_grad=True)
    t0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    v = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    odeint = partial(door.odeint_adjoint, adjoint_params=(g,)) if interface == "odeint_adjoint" else door.odeint
    y0 = (torch.tensor([1e-9], dtype=torch.float64), v)
    t, (x, speed) = door.odeint_event(
        lambda t, y: (y[1], -g * torch.ones_like(y[1])), y0, t0, event_fn=lambda t, y: torch.cat([y[0], y[0] + 100.0]),
        odeint_interface=odeint, method=method, options=options,
    )  # fmt: skip
    assert x.shape == speed.shape == (2, 1)
    bars = torch.autograd.grad(t, (t0, v, g), retain_graph=True)
    bars += torch.autograd.grad(speed[-1].sum(), (v, g), retain_graph=True)
    values = [float(value.detach()) for value in (t, speed[-1], *bars)]
    expected = [0.5 + 10 / 9.81, -5.0, 1.0, 2 / 9.81, -10 / 9.81**2, -1.0, 0.0]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
    (first,) = torch.autograd.grad(t, v, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), v)


def test_an_event_backwards_in_time():
    t, y = door.odeint_event(
        lambda t, y: y, torch.ones(1, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64),
        event_fn=lambda t, y: y - 0.5, reverse_time=True, method="lsoda",
    )  # fmt: skip
    np.testing.assert_allclose([float(t), float(y[-1])], [-np.log(2), 0.5], rtol=1e-6)


# On y = 1 + v sin t from y = 1: entries of an event, v, whether time runs backwards, and the sine at the first change of a sign.
FIRST_CHANGES = {
    "leaves downwards": (lambda y: [y, y - 1], -2.0, False, 0.5),
    "leaves upwards": (lambda y: [3 - y, y - 1, 2 - y], 2.0, False, 0.5),
    "two leave, both ways": (lambda y: [y - 1, 1 - y, y + 0.5], -2.0, False, 0.75),
    "one never leaves": (lambda y: [0 * y, y], -2.0, False, 0.5),
    "all leave, one returns": (lambda y: [y - 1, 1 - y], -2.0, False, 0.0),
    "backwards": (lambda y: [1 - y, 2 - y], -2.0, True, -0.5),
    "backwards and downwards": (lambda y: [y - 1, y], 2.0, True, -0.5),
}


@pytest.mark.parametrize("method, options", [("adams", None), ("dopri5", None), ("rk4", {"step_size": 0.05, "interp": "cubic"})])
@pytest.mark.parametrize("entries, v, reverse_time, sine", FIRST_CHANGES.values(), ids=FIRST_CHANGES)
def test_the_first_change_of_a_sign_is_the_event_where_entries_are_zero_at_the_start(
    method, options, entries, v, reverse_time, sine
):
    v = torch.tensor(v, dtype=torch.float64, requires_grad=True)
    y0, t0 = torch.stack([torch.ones_like(v), v]), torch.zeros_like(v)
    found = [
        door.odeint_event(
            lambda t, s: torch.stack([s[1], 1 - s[0]]), y0, t0, event_fn=lambda t, s: torch.stack(entries(s[0])),
            reverse_time=reverse_time, method=method, options=options, odeint_interface=odeint,
        )
        for odeint in (door.odeint, partial(door.odeint_adjoint, adjoint_params=()))
    ]  # fmt: skip
    expected = np.arcsin(sine) if sine else np.pi
    for t, y in found:
        # v sin t is constant at the event, and so is y.
        (t_v,) = torch.autograd.grad(t, v, create_graph=True)
        (y_v,) = torch.autograd.grad(y[-1, 0], v, retain_graph=True)
        values = [t.item(), y[-1, 0].item(), t_v.item(), y_v.item()]
        slope = -np.tan(expected) / v.item()
        np.testing.assert_allclose(values, [expected, 1 + v.item() * sine, slope, 0.0], rtol=1e-5, atol=1e-5)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(t_v, v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_event_that_stays_at_zero_lies_where_it_comes_there(dtype):
    k = torch.tensor(2.0, dtype=dtype, requires_grad=True)

    def crossing(event_fn):
        y0, t0 = torch.ones(1, dtype=dtype), torch.tensor(0.0, dtype=dtype)
        return door.odeint_event(lambda t, y: -k + 0.0 * y, y0, t0, event_fn=event_fn)

    t, _ = crossing(lambda t, y: torch.relu(y))
    np.testing.assert_allclose([t.item(), torch.autograd.grad(t, k)[0].item()], [0.5, -0.25], rtol=1e-6)
    with pytest.raises(ValueError, match="no derivative at its crossing at t = 0.5"):
        crossing(lambda t, y: (y > 0).to(dtype))
    with torch.no_grad():
        np.testing.assert_allclose(crossing(lambda t, y: (y > 0).to(dtype))[0], 0.5, rtol=1e-6)


def contracting(adjoint_options=None, method="lsoda", wants_t=False, create_graph=True):
    """sin 3 y(1) of y' = -60 (y - cos t), and its derivatives by (k = 60, y0); z(t) is lost on the way back."""
    k, y0 = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (60.0, 1.2))
    t, means = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=wants_t), {"rtol": 1e-6, "atol": 1e-6}
    y = door.odeint_adjoint(
        lambda t, y: -k * (y - torch.cos(t)), y0, t, method=method, adjoint_params=(k,), adjoint_options=adjoint_options, **means
    )
    inputs = (k, y0, t) if wants_t else (k, y0)
    return k, torch.autograd.grad(torch.sin(3 * y[-1]), inputs, create_graph=create_graph)


def contracting_exactly(k):
    """The same loss: y = p(t) + (1.2 - p(0)) exp(-k t), p = (k^2 cos t + k sin t) / (1 + k^2)."""
    p, p_start = (k**2 * np.cos(1.0) + k * np.sin(1.0)) / (1 + k**2), k**2 / (1 + k**2)
    return anp.sin(3 * (p + (1.2 - p_start) * anp.exp(-k)))


@pytest.mark.parametrize(
    "way, method",
    some_fast(
        [(way, method) for way in ("auto", "interpolate") for method in ("adams", "lsoda", "radau")],
        ("auto", "lsoda"), ("interpolate", "adams"),
    ),
)  # fmt: skip
def test_derivatives_of_derivatives_where_z_is_lost_on_the_way_back(way, method):
    options = {"reconstruction": way}
    k, bars = contracting(options, method)
    for bar, plain in zip(bars, contracting(options, method, create_graph=False)[1], strict=True):
        torch.testing.assert_close(bar.detach(), plain, rtol=0, atol=0)
    (second,) = torch.autograd.grad(bars[0], k, create_graph=True)
    (third,) = torch.autograd.grad(second, k)
    of_k = autograd.grad(contracting_exactly)
    expected = [of_k(60.0), autograd.grad(of_k)(60.0), autograd.grad(autograd.grad(of_k))(60.0)]
    np.testing.assert_allclose([bars[0].item(), second.item(), third.item()], expected, rtol=0.05)


def test_what_is_lost_is_told_where_it_is_not_healed():
    with pytest.warns(GradientWarning, match="lost z"):
        contracting({"reconstruction": "solve"})
    with pytest.raises(NotImplementedError, match="with respect to y0 and what func uses only"):
        contracting(wants_t=True)


def test_products_with_hessians_by_the_tangent_system():
    """Of a network, by params and y0, at several times, some of which are stored only, against z(t) solved backwards."""
    func, products = ODE(), []
    for options in (
        {},
        {"reconstruction": "interpolate"},
        {"reconstruction": "interpolate", "checkpoint": 2},
        {"restart": "warm"},
    ):
        y0 = start()
        inputs = [y0, *func.parameters()]
        y = door.odeint_adjoint(func, 2 * y0, T, method="dopri5", rtol=1e-9, atol=1e-9, adjoint_options=options)
        bars = torch.autograd.grad(torch.sin(y).sum(), inputs, create_graph=True)
        products.append(torch.autograd.grad(sum((bar**2).sum() for bar in bars), inputs))
    for others in products[1:]:
        assert_close(others, products[0], 1e-5)


def test_an_interface_that_hands_on_another_event_fn():
    def odeint(func, y0, t, event_fn):
        return door.odeint(func, y0, t, event_fn=lambda t, y: event_fn(t, y))

    problem = {"func": lambda t, y: -y, "y0": torch.ones(2), "t0": torch.tensor(0.0), "odeint_interface": odeint}
    t, _ = door.odeint_event(**problem, event_fn=lambda t, y: y[0] - 0.5)
    np.testing.assert_allclose(t, np.log(2), rtol=1e-6)
    with pytest.raises(TypeError, match="event_fn on as it is"):
        door.odeint_event(**problem, event_fn=lambda t, y: y - 0.5)


class Decay(torch.nn.Module):
    """dy/dt = -w e y with an e that changes from solve to solve, and calls that are counted."""

    def __init__(self, e):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.register_buffer("e", torch.tensor(e, dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, t, y):
        self.calls += 1
        return -self.w * self.e * y


@pytest.mark.parametrize("method, options", [("dopri5", None), ("dop853", None), ("rk4", {"step_size": 0.01})])
def test_gradients_are_those_of_func_as_it_was_in_the_forward_pass(method, options):
    """As in FFJORD, whose func has new noise for each pass."""
    func, y0, t = Decay(1.0), torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    ends = []
    for e in (1.0, 2.0):
        func.e = torch.tensor(e, dtype=torch.float64)
        ends.append(door.odeint(func, y0, t, method=method, options=options)[-1].sum())
    (first,) = torch.autograd.grad(sum(ends), func.w, create_graph=True)
    func.e = torch.tensor(5.0, dtype=torch.float64)
    (second,) = torch.autograd.grad(first, func.w)
    growths = np.exp(-0.5), np.exp(-1.0)
    expected = [-growths[0] - 2 * growths[1], growths[0] + 4 * growths[1]]
    np.testing.assert_allclose([first.item(), second.item()], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "interface, method, changed",
    # As in torchdiffeq, the steps need e alone, and the adjoint knows adjoint_params alone.
    [("odeint", "dopri5", "e"), ("odeint", "dop853", "e"), ("odeint", "rk4", "e"), ("odeint", "adams", "e"),
     ("odeint", "adams", "w"), ("odeint_adjoint", "dopri5", "w"), ("odeint_adjoint", "rk4", "w")],
)  # fmt: skip
def test_what_was_changed_in_place_between_the_passes_is_an_error(interface, method, changed):
    func, y0, t = Decay(1.0), torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    odeint, options = getattr(door, interface), {"step_size": 0.1} if method == "rk4" else None
    ends = [odeint(func, y0, t, method=method, options=options)[-1].sum() for _ in range(2)]
    # What func itself writes into, its count, is none of it.
    ends[0].backward()
    with torch.no_grad():
        getattr(func, changed).fill_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ends[1].backward()


@pytest.mark.parametrize("method, first_step", [("dopri5", None), ("dop853", None), ("dopri5", 1.0), ("dop853", 1.0)])
def test_steps_are_taken_back_without_another_evaluation(method, first_step):
    func, y0 = Decay(60.0), torch.ones(1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
    options = {} if first_step is None else {"first_step": first_step}
    with record_solves(steps=True) as solves:
        ys = door.odeint(func, y0, t, method=method, options=options)
        # One more finds what func uses.
        assert func.calls == solves[0].nfe + 1
        bars = torch.autograd.grad(ys[1].log().sum(), (y0, t, func.w))
    assert func.calls == solves[0].nfe + 1 and len(solves) == 1
    if first_step:  # it was rejected
        assert solves[0].nfe > (solves[0].steps + 1) * (6 if method == "dopri5" else 12)
    np.testing.assert_allclose(
        torch.cat([bar.reshape(-1) for bar in bars]), [1.0, 30.0, -30.0, 0.0, -24.0], rtol=1e-4, atol=1e-12
    )


def test_steps_taken_back_on_both_sides_of_a_jump_and_outwards_from_late_times():
    """Times are counted from the start where they are far from zero, and func is asked on one side of a jump only."""
    w, start = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True), 1e7
    t = torch.tensor([start, start + 0.75, start + 0.25], dtype=torch.float64)[[0, 2, 1]]
    for method in ("dopri5", "dop853"):
        y = door.odeint(
            lambda t, y: -w[int(t > start + 0.5)] * y, torch.ones(1, dtype=torch.float64), t, method=method,
            options={"jump_t": [start + 0.5]},
        )  # fmt: skip
        (bar,) = torch.autograd.grad(y[-1].log().sum(), w)
        np.testing.assert_allclose(bar, [-0.5, -0.25], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_func_and_event_may_write_into_what_they_are_given(method, interface):
    w, y0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), torch.tensor([1.0, 2.0], dtype=torch.float64)
    fixed = method in ("euler", "midpoint", "rk4", "rk4_classic")
    means = {"method": method, "options": {"step_size": 0.01, "interp": "cubic"} if fixed else None}
    odeint = partial(door.odeint_adjoint, adjoint_params=(w,)) if interface == "odeint_adjoint" else door.odeint

    def into(t, y):
        t.add_(1e9)
        return y.mul_(-1.0) * w

    t0 = torch.tensor(0.0, dtype=torch.float64)
    end = torch.stack([t0, torch.tensor(1.3, dtype=torch.float64)])
    event = {"event_fn": lambda t, y: y.sub_(1.0).sum() - 0.5, "odeint_interface": odeint, **means}
    ours, plain = [], []
    for func, found in ((into, ours), (lambda t, y: -y * w, plain)):
        y, (t, last) = odeint(func, y0, end, **means), door.odeint_event(func, y0, t0, **event)
        found += [y, t, last, *(torch.autograd.grad(value.sum(), w, retain_graph=True)[0] for value in (y, t, last[-1]))]
    assert y0.tolist() == [1.0, 2.0] and t0 == 0
    assert_close(ours, plain, 1e-12)


@pytest.mark.parametrize("interp", ["linear", "cubic"])
def test_the_gradient_of_an_output_time_on_the_grid_is_the_slope_of_the_interpolant(interp):
    t, h = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True), 0.25
    means = {"method": "rk4", "options": {"step_size": h, "interp": interp}}
    y0 = torch.ones(1, dtype=torch.float64)
    (bar,) = torch.autograd.grad(door.odeint(lambda t, y: -y, y0, t, **means)[1].sum(), t)
    before, y = door.odeint(lambda t, y: -y, y0, torch.arange(3, dtype=torch.float64) * h, method="rk4")[1:]
    np.testing.assert_allclose(bar[1], (y - before)[0] / h if interp == "linear" else -y[0], rtol=1e-12)


@pytest.mark.parametrize(
    "change, kind, match",
    [
        ({"method": "dopri8"}, ValueError, "'dop853'"),
        ({"method": "scipy_solver"}, ValueError, "'lsoda'"),
        ({"method": "nothing"}, ValueError, "method must be one of adams"),
        ({"y0": torch.ones(2, dtype=torch.complex64)}, TypeError, "y0 must be real.*view_as_real"),
        ({"y0": torch.ones(2, dtype=torch.float16)}, TypeError, "float32 or float64"),
        ({"y0": [1.0]}, TypeError, "y0 must be a tensor or a tuple"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ValueError, "strictly"),
        ({"t": torch.tensor([0, 1])}, TypeError, "floating-point"),
        ({"options": {"norm": torch.abs}}, ValueError, "norm"),
        ({"options": {"safety": 0.8}}, ValueError, "unknown 'safety'.*known are"),
        ({"rtol": -1.0}, ValueError, "rtol must be positive"),
        ({"atol": (1e-3, 1e-3)}, ValueError, "atol must be a number"),
        ({"func": lambda t, y: y[:1]}, ValueError, "shape of y, \\(2,\\), got \\(1,\\)"),
        ({"func": lambda t, y: None}, TypeError, "func must return dy/dt"),
        ({"method": "rk4", "options": {"step_size": 0.1, "grid_constructor": len}}, ValueError, "exclude"),
        ({"event_fn": lambda t, y: y > 0}, TypeError, "event_fn must return numbers that change their sign, got booleans"),
        ({"event_fn": lambda t, y: y.sum(), "t": torch.tensor([0.0, 1.0, 2.0])}, ValueError, "len\\(t\\) == 2"),
    ],
)
def test_what_makes_no_sense_is_refused(change, kind, match):
    given = {"func": lambda t, y: -y, "y0": torch.ones(2), "t": torch.tensor([0.0, 1.0]), **change}
    with pytest.raises(kind, match=match):
        door.odeint(given.pop("func"), given.pop("y0"), given.pop("t"), **given)


@pytest.mark.parametrize("interface", [door.odeint, partial(door.odeint_adjoint, adjoint_params=())])
@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, y0: torch.func.vmap(f)(y0),
        lambda f, y0: torch.func.jacrev(f)(y0),
        lambda f, y0: torch.func.jvp(f, (y0,), (y0,)),
    ],
    ids=["vmap", "jacrev", "jvp"],
)
def test_transforms_of_torch_func_are_refused(interface, transformed):
    with pytest.raises(TypeError, match="y0 is transformed by torch.func"):
        transformed(lambda y: interface(lambda t, y: -y, y, torch.tensor([0.0, 1.0])), torch.ones(1, 2))


def test_a_failed_solve_tells_where_it_came_to():
    with pytest.raises(SolverError) as info:
        door.odeint(
            lambda t, y: y**2, torch.ones(1), torch.tensor([0.0, 0.5, 2.0]), method="adams", options={"max_num_steps": 300}
        )
    assert info.value.ts.tolist() == [0.0, 0.5]
    torch.testing.assert_close(info.value.ys[-1], torch.tensor([2.0]), rtol=1e-4, atol=0)


def test_a_function_without_parameters_needs_adjoint_params():
    with pytest.raises(ValueError, match="adjoint_params"):
        door.odeint_adjoint(lambda t, y: -y, torch.ones(1), T.float())


def test_an_odenet_trained_by_vode_follows_torchdiffeqs():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    torch.manual_seed(1)
    x, target = torch.randn(16, 3, dtype=torch.float64), torch.randint(0, 3, (16,))

    def trained(odeint, method):
        func, head = ODE(), net()
        optimiser = torch.optim.SGD([*func.parameters(), *head.parameters()], 0.2)
        for _ in range(5):
            optimiser.zero_grad()
            y = odeint(func, x, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-10, atol=1e-10, method=method)[-1]
            loss = torch.nn.functional.cross_entropy(head(y), target)
            loss.backward()
            optimiser.step()
        return [loss.detach(), *(param.grad for param in func.parameters())]

    assert_close(trained(door.odeint_adjoint, "adams"), trained(torchdiffeq.odeint_adjoint, "dopri5"), 1e-6)


def test_that_torchdiffeqs_own_tests_are_asked_for_by_name(capsys, monkeypatch):
    from tests import torchdiffeq_own_tests

    monkeypatch.delenv("TORCHDIFFEQ_TESTS", raising=False)
    assert torchdiffeq_own_tests.main([]) == 2 and "not at hand" in capsys.readouterr().out
    assert "torchdiffeq" not in sys.modules or hasattr(sys.modules["torchdiffeq"], "odeint")


@pytest.mark.parametrize("way", [door.odeint, door.odeint_adjoint])
@pytest.mark.parametrize("method", ["dopri5", "adams"])
@pytest.mark.parametrize("times", [[0.0, 0.5, 2.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], ids=str)
def test_derivatives_by_times_around_a_jump(times, method, way):
    """dy/dt = r y, r = 1 before t = 1 and 3 from then on: the start's has no share of the jump, an output's there is of its side."""

    class Switched(torch.nn.Module):
        def forward(self, t, y):
            return torch.where(t < 1.0, 1.0, 3.0) * y

    t = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    weights, y0 = torch.tensor([0.3, 0.7, -0.4], dtype=torch.float64), torch.tensor([1.2], dtype=torch.float64)
    means = {"method": method, "rtol": 1e-9, "atol": 1e-9, "options": {"jump_t": torch.tensor([1.0])}}
    states = way(Switched(), y0, t, **means)[:, 0]
    (bars,) = torch.autograd.grad(weights @ states, t, create_graph=True)
    (by_start,) = torch.autograd.grad(bars[0], t)
    rates = [1.0 if time < 1 or time == 1 and times[0] < 1 else 3.0 for time in times]
    want = weights * torch.tensor(rates, dtype=torch.float64) * states.detach()
    want[0] = -rates[0] * (weights[1:] @ states.detach()[1:])
    torch.testing.assert_close(bars.detach(), want, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(by_start[0], -rates[0] * want[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("backward", ["inside", "outside"])
@pytest.mark.parametrize("forward", ["inside", "outside"])
@pytest.mark.parametrize("method", ["adams", "dopri5"])
@pytest.mark.parametrize("odeint", [door.odeint, door.odeint_adjoint])
def test_backward_evaluates_func_under_the_autocast_of_the_solve(odeint, method, forward, backward):
    linear, dtypes = torch.nn.Linear(3, 3), set()

    class Func(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, t, y):
            dy = self.linear(y)
            dtypes.add(dy.dtype)
            return dy.tanh()

    def autocast(where):
        return torch.autocast("cpu", torch.bfloat16, enabled=where == "inside")

    with autocast(forward):
        y = odeint(Func(), torch.ones(2, 3), torch.tensor([0.0, 1.0]), rtol=1e-2, atol=1e-2, method=method)
    with autocast(backward):
        y[-1].sum().backward()
    assert dtypes == {torch.bfloat16 if forward == "inside" else torch.float32}
    assert linear.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("traced", [False, True])
def test_a_state_that_is_hardly_found_is_told(traced):
    k = torch.tensor([10.0, 1.0], dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 0.85], dtype=torch.float64)
    y = door.odeint_adjoint(lambda t, y: -k * y, torch.ones(2).double(), times, rtol=1e-3, atol=1e-3, adjoint_params=(k,))
    words = "hardly found .*which is being differentiated" if traced else "hardly found"
    with pytest.warns(GradientWarning, match=words):
        torch.autograd.grad(y[-1].sum(), k, create_graph=traced)


def test_an_adjoint_that_has_lost_its_balance_is_told():
    mu = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)

    def van_der_pol(t, y):
        return torch.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    y0, times = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 15.0], dtype=torch.float64)
    y = door.odeint(van_der_pol, y0, times, method="lsoda", rtol=1e-2, atol=1e-2)
    with pytest.warns(GradientWarning, match="the gradient by lsoda may be wrong"):
        y[-1, 0].backward()


@pytest.mark.parametrize("wants_t", [False, True])
def test_a_derivative_by_time_that_nobody_asked_for_is_not_missed(wants_t):
    """Without it the balance of a func that depends on t cannot be known."""
    rate = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=wants_t)

    def solved(tolerance):
        y0 = torch.full((1,), 0.5, dtype=torch.float64)
        func = lambda t, y: -rate * (y - torch.cos(t))
        return 1e3 * door.odeint_adjoint(func, y0, times, rtol=tolerance, atol=tolerance, adjoint_params=(rate,))[-1].sum()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solved(1e-6).backward()
        assert not caught
        solved(1e-2).backward()
    assert len(caught) == wants_t

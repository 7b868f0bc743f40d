"""Right-hand sides of ODEs written once, for every array library.

f(ops, t, y, *params) gives dy/dt in the shape of y; `ops` is what a library calls its operations: tanh, cos, relu, stack(list),
concat(list, axis), reshape(x, shape), mean(x, axes) with the axes kept; one may have group_norm(x, scale, shift, groups) and
conv(x, weight) of its own. t is a scalar of the library. This module imports nothing, since it is read in environments that hold
one library each.
"""


def mlp(ops, t, y, w1, b1, w2, b2):
    """tanh(y W1 + b1) W2 + b2: y (batch, n)."""
    return ops.tanh(y @ w1 + b1) @ w2 + b2


def planar_flow(ops, t, y, w1, b1, w2, b2, w3, b3):
    """`original_repro.flows.planar_dynamics` beside minus its trace: y (points, 3), positions and log density."""
    hidden = ops.tanh(ops.tanh(t * w1 + b1) @ w2 + b2)
    output = ops.reshape(hidden @ w3 + b3, (-1,))
    units = output.shape[0] // 6
    w, u = ops.reshape(output[: 2 * units], (2, units)), ops.reshape(output[2 * units : 4 * units], (units, 2))
    gate = 0.5 + 0.5 * ops.tanh(0.5 * output[4 * units : 5 * units])
    gated = u * ops.reshape(gate / units, (units, 1))
    h = ops.tanh(y[:, :2] @ w + output[5 * units :])
    slopes = w[0] * gated[:, 0] + w[1] * gated[:, 1]
    return ops.concat([h @ gated, -((1.0 - h * h) @ ops.reshape(slopes, (units, 1)))], 1)


def conv_layer(ops, t, y, *params):
    """The ODE-Net's layer, `original_repro.supervised.conv_dynamics`: y (batch, height, width, channels).

    params: (scale, shift) of the first norm, (weight, bias) of the first convolution, both again, the last norm's (scale, shift).
    weight (3, 3, channels + 1, channels): the first channel in is t. Channels are normalised in groups of two.
    """
    return _conv_layer(ops, ops.relu, t, y, *params)


def smooth_conv_layer(ops, t, y, *params):
    """`conv_layer` with tanh for ReLU, whose kinks no integrator passes at its order."""
    return _conv_layer(ops, ops.tanh, t, y, *params)


def _conv_layer(ops, activation, t, y, scale1, shift1, weight1, bias1, scale2, shift2, weight2, bias2, scale3, shift3):
    norm = getattr(ops, "group_norm", None) or (lambda *arguments: group_norm(ops, *arguments))
    conv = getattr(ops, "conv", None) or (lambda *arguments: conv_by_products(ops, *arguments))
    groups = y.shape[-1] // 2

    def with_time(x):
        return ops.concat([0.0 * x[..., :1] + t, x], 3)

    h = conv(with_time(activation(norm(y, scale1, shift1, groups))), weight1) + bias1
    h = conv(with_time(activation(norm(h, scale2, shift2, groups))), weight2) + bias2
    return norm(h, scale3, shift3, groups)


def group_norm(ops, x, scale, shift, groups):
    """Group normalisation (Wu and He 2018) of x (batch, height, width, channels) with epsilon 1e-5."""
    shape = tuple(x.shape)
    grouped = ops.reshape(x, (shape[0], shape[1] * shape[2], groups, shape[3] // groups))
    centred = grouped - ops.mean(grouped, (1, 3))
    return ops.reshape(centred * (ops.mean(centred**2, (1, 3)) + 1e-5) ** -0.5, shape) * scale + shift


def conv_by_products(ops, x, weight):
    """A convolution by 3 x 3, zeros around x (batch, height, width, channels), as nine matrix products."""
    _, height, width, _ = x.shape
    column = 0.0 * x[:, :, :1]
    wide = ops.concat([column, x, column], 2)
    row = 0.0 * wide[:, :1]
    padded = ops.concat([row, wide, row], 1)
    return sum(padded[:, i : i + height, j : j + width] @ weight[i, j] for i in range(3) for j in range(3))


def lotka_volterra(ops, t, y, p):
    """Prey and predators, y (2,): p = (growth, being eaten, death, eating)."""
    return ops.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])


def relaxation(ops, t, y, p):
    """-p_1 (y - cos t): y (1,) contracts at that rate."""
    return -p[0] * (y - ops.cos(t))


def van_der_pol(ops, t, y, p):
    """Van der Pol's oscillator, y (2,): p = (mu,)."""
    return ops.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(ops, t, y, p):
    """Robertson's reaction, y (3,): p = (k1, k2, k3) = (0.04, 3e7, 1e4)."""
    slow, fast, back = p[0] * y[0], p[1] * y[1] ** 2, p[2] * y[1] * y[2]
    return ops.stack([back - slow, slow - back - fast, fast])


def stiff_network(ops, t, y, rates, w1, b1, w2, b2):
    """rates (mlp(y) - y): each unknown of y (1, n) follows a network at its own rate (n,)."""
    return rates * (mlp(ops, t, y, w1, b1, w2, b2) - y)


def reaction_diffusion(ops, t, y, p):
    """Fisher's equation on a ring of n cells, y (n,): p = (diffusion, growth)."""
    neighbours = ops.concat([y[1:], y[:1]], 0) + ops.concat([y[-1:], y[:-1]], 0)
    return p[0] * (neighbours - 2.0 * y) + p[1] * y * (1.0 - y)

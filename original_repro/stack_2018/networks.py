"""Small multilayer perceptrons as dynamics, func(y, t, params) in autograd.numpy 1.2, for flat states y.

The tanh and softplus networks multiply matrices by np.dot. The rational ones use nothing but additions, multiplications and
divisions of elements in an order that is written out, which IEEE 754 defines to the last bit: neither BLAS nor the mathematical
library can make two stacks differ in them.
"""
import autograd.numpy as np

from generator import uniform


def tanh(y, t, params):
    """Autonomous: tanh(y W1 + b1) W2 + b2."""
    w1, b1, w2, b2 = params
    return np.dot(np.tanh(np.dot(y, w1) + b1), w2) + b2


def softplus_time(y, t, params):
    """softplus(y W1 + t v + b1) W2 + b2."""
    w1, v, b1, w2, b2 = params
    return np.dot(np.logaddexp(0.0, np.dot(y, w1) + t * v + b1), w2) + b2


def tanh_minibatch(y, t, params):
    """Rows of a minibatch solved as one ODE (section 6 of the paper): tanh(Y W1 + t v + b1) W2 + b2."""
    w1, v, b1, w2, b2 = params
    rows = np.reshape(y, (-1, w1.shape[0]))
    return np.reshape(np.dot(np.tanh(np.dot(rows, w1) + t * v + b1), w2) + b2, (-1,))


def rational(y, t, params):
    """Autonomous: r(y W1 + b1) W2 + b2 with r(x) = x / (1 + x x), sums written out."""
    w1, b1, w2, b2 = params
    return linear(ratio(linear(y, w1) + b1), w2) + b2


def rational_time(y, t, params):
    """r(y W1 + t v + b1) W2 + b2, sums written out."""
    w1, v, b1, w2, b2 = params
    return linear(ratio(linear(y, w1) + t * v + b1), w2) + b2


def ratio(x):
    return x / (1.0 + x * x)


def linear(y, w):
    """y W, row by row of W."""
    total = y[0] * w[0]
    for i in range(1, w.shape[0]):
        total = total + y[i] * w[i]
    return total


# name: (func, unknowns a sample, hidden units, samples, time-dependent, seed)
NETWORKS = {
    "tanh": (tanh, 2, 10, 1, False, 1),
    "softplus_time": (softplus_time, 3, 8, 1, True, 2),
    "tanh_minibatch": (tanh_minibatch, 2, 16, 5, True, 3),
    "rational": (rational, 2, 6, 1, False, 4),
    "rational_time": (rational_time, 3, 7, 1, True, 5),
}


def inputs(name):
    """(func, y0, params) of a network, from its seed; params in the order of its arguments."""
    func, n, hidden, samples, time_dependent, seed = NETWORKS[name]
    w1, v, b1 = 2 * uniform(10 * seed, (n, hidden)), uniform(10 * seed + 1, (hidden,)), uniform(10 * seed + 2, (hidden,))
    w2, b2 = uniform(10 * seed + 3, (hidden, n)), 0.2 * uniform(10 * seed + 4, (n,))
    if name.startswith("softplus"):
        w2 = 0.25 * w2  # not bounded as the others are
    y0 = uniform(10 * seed + 5, (samples * n,))
    return func, y0, [w1, v, b1, w2, b2] if time_dependent else [w1, b1, w2, b2]

"""One encoder block of the Transformer (Vaswani et al. 2017, section 3) that reads a set of observations.

As there: self-attention of several heads, then a feed-forward network at each observation, each added to its input and brought to
mean 0 and variance 1 over the features. An observation is embedded with its time and the sines and cosines of its time in the
place of those of a position (their section 3.5), since times are irregular; no dropout. What is read from the set is the mean of
its observations' features.
"""

import numpy as np
import tensorflow as tf

from .layers import dense, init_dense

HEADS = 5
# Radians in a unit of time: periods from 1.6 to 13.
FREQUENCIES = (0.5, 1.0, 2.0, 4.0)


def init_attention(rng, features_in, units, features_out):
    """Parameters of `attention`, float32; units is a multiple of HEADS."""
    if units % HEADS:
        raise ValueError(f"units must be a multiple of {HEADS}, the heads of the attention, got {units}")
    return {
        "embedding": init_dense(rng, features_in + 2 * len(FREQUENCIES), units),
        "queries_keys_values": init_dense(rng, units, 3 * units),
        "read": init_dense(rng, units, units),
        "norm1": _init_norm(units),
        "hidden": init_dense(rng, units, 2 * units),
        "feed": init_dense(rng, 2 * units, units),
        "norm2": _init_norm(units),
        "output": init_dense(rng, units, features_out),
    }


def attention(params, inputs, mask):
    """(N, features_out) of a set of observations: inputs (N, n, features), the last of which is the time, in any order.

    Where mask (N, n) is 0 there is no observation.
    """
    h = _dense(params["embedding"], with_sinusoids(inputs))
    h = _layer_norm(params["norm1"], h + _dense(params["read"], _heads(params["queries_keys_values"], h, mask)))
    h = _layer_norm(params["norm2"], h + _dense(params["feed"], tf.nn.relu(_dense(params["hidden"], h))))
    seen = mask[..., None]
    return dense(params["output"], tf.reduce_sum(seen * h, 1) / tf.reduce_sum(seen, 1))


def with_sinusoids(inputs):
    """inputs (N, n, features) with sine and cosine of their last feature at each of FREQUENCIES beside them."""
    angles = inputs[..., -1:] * tf.constant(FREQUENCIES, inputs.dtype)
    return tf.concat([inputs, tf.sin(angles), tf.cos(angles)], -1)


def _heads(params, h, mask):
    """softmax(q k^T / sqrt(width)) v of every head, side by side: h (N, n, units) -> the same shape."""
    count, length, units = h.shape
    width = units // HEADS
    q, k, v = (tf.reshape(part, (count, length, HEADS, width)) for part in tf.split(_dense(params, h), 3, axis=-1))
    scores = tf.einsum("nqhw,nkhw->nhqk", q, k) / width**0.5 - 1e9 * (1 - mask[:, None, None, :])
    return tf.reshape(tf.einsum("nhqk,nkhw->nqhw", tf.nn.softmax(scores, axis=-1), v), h.shape)


def _dense(params, x):
    """`dense` of the last axis of x (N, n, features)."""
    return tf.reshape(dense(params, tf.reshape(x, (-1, x.shape[-1]))), (*x.shape[:2], -1))


def _init_norm(units):
    return {"scale": np.ones(units, np.float32), "shift": np.zeros(units, np.float32)}


def _layer_norm(params, x, epsilon=1e-5):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon) * params["scale"] + params["shift"]

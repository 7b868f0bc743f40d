"""What the libraries' arrays call the operations of `harness.right_hand_sides`."""

from types import SimpleNamespace


def of_numpy(np):
    """Of NumPy, or of autograd's wrapping of it."""
    return SimpleNamespace(
        tanh=np.tanh,
        cos=np.cos,
        relu=lambda x: np.maximum(x, 0.0),
        stack=np.array,
        concat=np.concatenate,
        reshape=np.reshape,
        mean=lambda x, axes: np.mean(x, axes, keepdims=True),
    )


def of_jax():
    """Of jax.numpy."""
    import jax
    from jax import numpy as jnp

    def conv(x, weight):
        return jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return SimpleNamespace(**vars(of_numpy(jnp)) | {"relu": jax.nn.relu, "stack": jnp.stack, "conv": conv})


def of_torch():
    """Of PyTorch, images channels-last."""
    import torch
    from torch.nn import functional

    def group_norm(x, scale, shift, groups):
        return functional.group_norm(x.permute(0, 3, 1, 2), groups, scale, shift).permute(0, 2, 3, 1)

    def conv(x, weight):
        return functional.conv2d(x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)

    return SimpleNamespace(
        tanh=torch.tanh,
        cos=torch.cos,
        relu=functional.relu,
        stack=torch.stack,
        concat=torch.cat,
        reshape=torch.reshape,
        mean=lambda x, axes: torch.mean(x, axes, keepdim=True),
        group_norm=group_norm,
        conv=conv,
    )


def of_tensorflow(group_norm=None):
    """Of TensorFlow; group_norm(x, scale, shift, groups): one with a derivative by hand, where there is one."""
    import tensorflow as tf

    return SimpleNamespace(
        tanh=tf.tanh,
        cos=tf.cos,
        relu=tf.nn.relu,
        stack=tf.stack,
        concat=tf.concat,
        reshape=tf.reshape,
        mean=lambda x, axes: tf.reduce_mean(x, axes, keepdims=True),
        group_norm=group_norm,
        conv=lambda x, weight: tf.nn.conv2d(x, weight, 1, "SAME"),
    )

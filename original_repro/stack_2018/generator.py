"""Numbers that two programs, seven years apart, make alike: SplitMix64 in integer arithmetic.

G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014). All arithmetic is on 64-bit
integers that wrap around, followed by exact operations on doubles, so no release of anything can change the result.
"""
import numpy as np


def splitmix64(seed, count):
    """uint64 array (count,): entry i is the finaliser of seed + (i + 1) * golden ratio, modulo 2**64."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(seed, shape):
    """float64 array of the given shape in [-1, 1): the upper 24 bits of splitmix64, so that float32 holds them exactly."""
    bits = splitmix64(seed, int(np.prod(shape))) >> np.uint64(40)
    return (bits.astype(np.float64) / 2**23 - 1).reshape(shape)


def projections(seed, array, count=32):
    """float64 array (count,): sums of the entries of array with random signs, bit k of splitmix64 for the k-th.

    The mean square of the projections of a difference estimates the square of its norm (Johnson and Lindenstrauss 1984).
    """
    bits = splitmix64(seed, array.size)
    flat = np.asarray(array, np.float64).reshape(-1)
    signs = [1.0 - 2.0 * ((bits >> np.uint64(k)) & np.uint64(1)).astype(np.float64) for k in range(count)]
    return np.array([np.sum(sign * flat) for sign in signs])

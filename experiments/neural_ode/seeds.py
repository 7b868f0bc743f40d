"""Seeds that compiled training can draw from."""

SEEDS = 2**31  # original_repro.training.compiled has int32, and imports TensorFlow


def check_compiled_seed(seed):
    """Raise ValueError, before any other fit is made, for a seed that `training.compiled` refuses."""
    if seed >= SEEDS:
        raise ValueError(f"--seed must be below 2**31, since the planar flows' training is compiled; got {seed}")

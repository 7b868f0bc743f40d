"""What the bridge is to reach in `bench`: ratios of medians, by the names of their rows."""

GOALS = {
    "f": 2.0,
    "fused_vjp": 6.0,
    "small_speedup": 8.0,
    "torchdiffeq_ratio": 0.7,
    "memory_ratio": 1.05,
    "flow_speedup": 10.0,
    "latent_speedup_loose": 10.0,
    "latent_speedup_tight": 10.0,
    # Graphs compiled ahead of time; times of solve and gradient over the peer's, then times faster than torchdiffeq.
    "small_over_jax": 1.0,
    "small_over_diffrax": 0.5,
    "small_over_torchdiffeq": 0.01,
    "flow_native_speedup": 15.0,
    "latent_native_speedup": 20.0,
    "latent_over_diffrax": 1.0,
}

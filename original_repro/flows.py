    estimation (section 6); compiler is that of TensorFlowDynamics. All points are solved as one ODE. The object holds the
    compiled graphs, one for each number of points; keep it. Arrays of points have shape (points, d); log densities are in nats,
    (points,), float64.
    """

"""Figure 3 on MNIST: measurements, what they come to, figures."""

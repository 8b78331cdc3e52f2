"""Run one function over a parameter space, on a laptop or a cluster."""

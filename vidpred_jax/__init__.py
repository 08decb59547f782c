"""Video prediction and frame interpolation in JAX."""

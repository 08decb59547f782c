"""Flax modules: parameters, no losses, no loops over data."""

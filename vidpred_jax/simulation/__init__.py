"""Fluid simulation, and films of the simulated flow."""

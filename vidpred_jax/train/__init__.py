"""Training: the loop, the optimiser, and the folder of a run."""

"""Training: the loop, its optimiser, and the folder of a run."""

"""The published layers in plain PyTorch, and their times."""

"""Our steps and PyTorch's in turns, and where the time of both goes."""

"""The cost of the systems on this machine."""

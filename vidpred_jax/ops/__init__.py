"""Array to array, no parameters."""

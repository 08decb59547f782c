"""Flow of a fluid, simulated, and the films it makes."""

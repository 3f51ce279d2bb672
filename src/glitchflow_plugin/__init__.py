"""A digital twin of detector noise: learns from witness channels which glitch the strain channel will show."""

__version__ = "0.1.0"

"""Readers of what detectors write, one file per source."""

"""Continuous data in, clean strain, ranks and vetoes out."""

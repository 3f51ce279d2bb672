"""A small physical detector with known truth."""

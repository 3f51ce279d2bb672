"""Losses, epoch metrics and baselines."""

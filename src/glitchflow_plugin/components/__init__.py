"""Thin itwinai steps, one class a file."""

"""The Tracker protocol, its adapters, and the model registry."""

"""A digital twin of detector noise: learns from witness channels which glitch the strain channel will show."""

import os

# MLflow reports to its makers how it is used, unless it is told before it is imported; what the user has set stays
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"

"""A digital twin of detector noise: learns from witness channels which glitch the strain channel will show."""

import os
import warnings

# MLflow reports to its makers how it is used, unless it is told before it is imported; what the user has set stays
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"

# torch says this of a package that itwinai brings along; nobody who runs a pipeline can do anything about it. It stands
# behind the user's own filters (PYTHONWARNINGS, -W), and before torch is imported: every room is below this package.
warnings.filterwarnings("ignore", "The pynvml package is deprecated", FutureWarning, append=True)

"""A page on this machine where files of triggers are dropped and a registered model is asked about them."""

REGISTRY_VARIABLE = "GLITCHFLOW_UI_REGISTRY"
"""Variable of the environment that holds the address of the registry: others could read it in a command line."""

"""What the command tells the page that it starts."""

REGISTRY_VARIABLE = "GLITCHFLOW_UI_REGISTRY"
"""Variable of the environment that holds the address of the registry: others could read it in a command line."""

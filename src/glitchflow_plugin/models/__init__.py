"""Networks and the bundle that a registered model is."""

"""A page on this machine where files of triggers are dropped and a registered model is asked about them."""

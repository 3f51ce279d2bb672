"""Networks and trees that learn from sets of triggers."""

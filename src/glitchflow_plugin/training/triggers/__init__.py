"""How models of triggers are learnt and judged."""

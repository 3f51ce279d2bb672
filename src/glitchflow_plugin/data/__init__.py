"""Records, their storage, and readers of foreign files."""

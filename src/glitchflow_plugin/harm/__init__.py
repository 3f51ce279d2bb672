"""What cleaning does to signals that are put into the data."""

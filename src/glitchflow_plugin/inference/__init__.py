"""Prediction, cleaning, vetoes and scores, in memory."""

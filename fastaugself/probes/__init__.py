"""Scores of features, as pure functions."""

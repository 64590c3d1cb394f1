"""Probes: scores of frozen features, as pure functions."""

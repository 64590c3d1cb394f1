"""Trained backbones for other programs."""

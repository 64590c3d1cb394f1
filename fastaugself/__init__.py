"""Augmentation-aware pretraining of image encoders."""

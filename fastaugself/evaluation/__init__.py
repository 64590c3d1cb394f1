"""Evaluation of frozen encoders: feature extraction, data sets and protocols."""

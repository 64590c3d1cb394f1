"""The configuration of a pretraining run."""

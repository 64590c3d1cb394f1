"""Pretraining methods, one a file, behind one protocol (see base.py)."""

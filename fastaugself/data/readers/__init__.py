"""Readers of .beton files: who reads and decodes."""

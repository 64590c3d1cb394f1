"""Exports of trained backbones for other libraries."""

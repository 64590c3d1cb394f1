"""Backbones, heads, batch norms, EMA copies and pretrained weights."""

"""Benchmarks: all contestants in one run on one machine, checked to compute the same before they are timed."""

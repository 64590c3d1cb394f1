"""Benchmarks: all contestants run in turn on one machine, after a check that they compute the same result."""

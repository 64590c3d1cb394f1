"""Fixtures of the tests of reports."""

import functools

import pytest

from fastaugself.report import predictions, report


@pytest.fixture
def fewer_pairs(monkeypatch):
    """Heads are evaluated on 32 pairs."""
    monkeypatch.setattr(report, "evaluate_heads", functools.partial(predictions.evaluate_heads, count=32))

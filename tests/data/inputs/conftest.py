"""Fixtures of the tests of photo collections."""

import pytest

from fastaugself.data.demo import load_photos


@pytest.fixture(scope="module")
def photo():
    """A real photo, 90 x 120."""
    return load_photos()["cat"].resize((120, 90))

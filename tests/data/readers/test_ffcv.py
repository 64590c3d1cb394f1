"""Importing FFCV costs what it has to."""

import subprocess
import sys

import pytest


def test_ffcvs_import_compiles_nothing_and_leaves_numbas_dictionary():
    """Two numbers in a typed dictionary cost every process seconds of compilation."""
    pytest.importorskip("ffcv")
    code = """
import numba, numba.typed
from numba.core import event
typed = numba.typed.Dict
with event.install_recorder("numba:compile") as recorder:
    from fastaugself.data.readers.ffcv import why_not
    assert why_not() is None
from ffcv.fields.rgb_image import IMAGE_MODES
print(len(recorder.buffer), numba.typed.Dict is typed, dict(IMAGE_MODES))
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "0 True {'jpg': 0, 'raw': 1}", result.stderr

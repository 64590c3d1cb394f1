"""Tests of Triton's kernels by its interpreter, and photos and parameters for them.

Triton reads TRITON_INTERPRET when it is imported, and must not have been imported otherwise in the same process. The
tests marked `interpreted` therefore run in one process of their own, started by the first of them; here only their
outcomes are read. `TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py` runs them directly.
"""

import functools
import importlib.util
import inspect
import itertools
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fastaugself_kernels import ViewPolicy

MARKS = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton"),
    pytest.mark.xdist_group("triton"),  # one worker, so that the interpreter's process starts once
    pytest.mark.timeout(900),  # the first test waits for all of them
    pytest.mark.usefixtures("poisoned"),
]
INTERPRETED = ("test_triton.py", "test_triton_params.py")  # in tests/kernels
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
EVERYTHING = ViewPolicy(jitter=0.9, gray=0.3, blur=0.8, solarize=0.4, solarize_threshold=(0.1, 0.9))
TURNED = replace(EVERYTHING, rotation=0.8, scale=(0.05, 1.0))


def interpreted(test):
    """Runs a test where Triton interprets, and elsewhere reports how it went there."""
    if INTERPRETING:
        return test

    @functools.wraps(test)
    def elsewhere(request, outcomes, **_):
        case = outcomes[request.node.name]
        for problem in itertools.chain(case.iter("failure"), case.iter("error")):
            pytest.fail(problem.text, pytrace=False)
        for reason in case.iter("skipped"):
            pytest.skip(reason.attrib.get("message", ""))

    own = inspect.signature(test).parameters
    extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("request", "outcomes")]
    elsewhere.__signature__ = inspect.Signature([*own.values(), *extra])
    return elsewhere


def photos(*sizes, seed=0):
    """Packed images with smooth and noisy parts: (pixels, offsets_B, sizes_B2)."""
    random = torch.Generator().manual_seed(seed)
    images = []
    for h, w in sizes:
        smooth = F.interpolate(torch.rand(1, 3, 7, 9, generator=random), size=(h, w), mode="bicubic")[0]
        image = 0.8 * smooth + 0.1 + 0.06 * torch.randn(3, h, w, generator=random)
        images.append((image.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).reshape(-1))
    lengths = torch.tensor([len(image) for image in images])
    return torch.cat(images), lengths.cumsum(0) - lengths, torch.tensor(sizes, dtype=torch.int32)

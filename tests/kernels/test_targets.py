"""The visible rotation, found by turning pixels; and the parts of the descriptors that CASSLE does not use."""

import itertools

import numpy as np
import pytest
import torch

from fastaugself_kernels import COLUMNS, augment, augself_targets, visible_rotation
from fastaugself_kernels.params import IDENTITY_ORDER, SOLARIZE_OFF, ViewPolicy

COLUMN = {name: i for i, name in enumerate(COLUMNS)}
NOTHING = (ViewPolicy.none(),) * 2
SIDE = 33


def identity_rows(sizes_B2, views=2):
    """Rows that crop the whole image and apply nothing, [V, B, P]."""
    params_VBP = torch.zeros(views, len(sizes_B2), len(COLUMNS))
    params_VBP[..., 2:4] = sizes_B2
    params_VBP[..., COLUMN["order"]] = IDENTITY_ORDER
    params_VBP[..., COLUMN["brightness"] : COLUMN["saturation"] + 1] = 1
    params_VBP[..., COLUMN["solarize"]] = SOLARIZE_OFF
    return params_VBP


# --- the visible rotation ---------------------------------------------------------------------------------------------


def turned_pairs(photo_HWC, backend):
    """Both views of `photo_HWC` for every pair of (rotation, flip): views [2, 64, H, W, C], rows, sizes."""
    kinds = list(itertools.product(range(4), (0, 1)))
    pairs = torch.tensor(list(itertools.product(kinds, kinds)), dtype=torch.float32)  # [64, 2 views, 2 columns]
    sizes_B2 = torch.tensor([[SIDE, SIDE]] * len(pairs))
    params_VBP = identity_rows(sizes_B2)
    params_VBP[..., COLUMN["rotation"]], params_VBP[..., COLUMN["flip"]] = pairs.permute(2, 1, 0)
    pixels = torch.from_numpy(photo_HWC).expand(len(pairs), -1, -1, -1).contiguous()
    views_VBCHW = augment(pixels, None, sizes_B2, params_VBP, size=SIDE, mean=(0, 0, 0), std=(1, 1, 1), backend=backend)
    return views_VBCHW.permute(0, 1, 3, 4, 2).numpy() * 255, params_VBP, sizes_B2


def only(found):
    (one,) = found
    return one


def equal(first, second):
    return np.abs(first - second).max() < 0.01


@pytest.fixture(params=["reference", "numba"])
def backend(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


def test_the_rotation_class_is_that_which_turns_the_second_view_into_the_first(backend):
    """Of a photo that equals its mirror image, so that no flip is visible: what turns is only the rotation."""
    half = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE // 2 + 1, 3), dtype=np.uint8)
    views, params_VBP, sizes_B2 = turned_pairs(np.concatenate([half, half[:, -2::-1]], 1), backend)
    ab, ba = augself_targets(params_VBP, sizes_B2, NOTHING)
    for b, (first, second) in enumerate(zip(*views, strict=True)):
        assert ab.rotation_B[b] == only(r for r in range(4) if equal(np.rot90(second, r), first))
        assert ba.rotation_B[b] == only(r for r in range(4) if equal(np.rot90(first, r), second))
    assert ab.rotation_B.dtype == torch.int64 and ab.rotation_B.bincount().tolist() == [16] * 4
    columns_2B = params_VBP[..., COLUMN["rotation"]].long()
    assert (ab.rotation_B != (columns_2B[0] - columns_2B[1]) % 4).sum() == 24  # which the columns alone get wrong


def test_each_view_shows_its_flip_and_its_visible_rotation(backend):
    """Of a photo without symmetry: exactly one flip, then rotation, makes the view, and the classes follow."""
    photo = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    views, params_VBP, sizes_B2 = turned_pairs(photo, backend)
    flipped_first = {(r, f): np.rot90(np.fliplr(photo) if f else photo, r) for r in range(4) for f in (0, 1)}
    seen = [[only(key for key, made in flipped_first.items() if equal(made, view)) for view in row] for row in views]
    turns_VB, flips_VB = torch.tensor(seen).unbind(-1)
    assert torch.equal(visible_rotation(params_VBP), turns_VB) and turns_VB.dtype == torch.int64
    assert torch.equal(params_VBP[..., COLUMN["flip"]].long(), flips_VB)
    for order, targets in enumerate(augself_targets(params_VBP, sizes_B2, NOTHING)):
        assert torch.equal(targets.rotation_B, (turns_VB[order] - turns_VB[1 - order]) % 4)
        assert torch.equal(targets.flip_B1[:, 0], (flips_VB[0] == flips_VB[1]).float())

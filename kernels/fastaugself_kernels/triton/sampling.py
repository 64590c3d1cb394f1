"""The parameter kernel: what `sample_params_torch` draws, bit for bit, in one launch.

Everything that is rounded is float64 with one rounding per operation: the launch forbids fused multiply-adds, which
the CPU's arithmetic does not have.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import params
from .columns import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GRAY,
    HEIGHT,
    HUE,
    JITTER,
    LEFT,
    ORDER,
    POLICY_COLUMNS,
    ROTATION,
    SATURATION,
    SIGMA,
    SOLARIZE,
    SOLARIZE_OFF,
    SPARE,
    TOP,
    WIDTH,
    P,
)
from .configs import Config, config
from .launch import Launch, require_device, run

CROP_ATTEMPTS = tl.constexpr(params.CROP_ATTEMPTS)
SLOTS_PER_VIEW = tl.constexpr(params.SLOTS_PER_VIEW)


def sample_params_triton(
    sample_ids_B: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, seed: int, epoch: int
) -> Tensor:
    """Draws params_VBP, float32 [V, B, 16], on the device of the ids; arguments as `sample_params_torch`."""
    require_device(sample_ids_B, sample_kernel)
    V, B = packed_V32.shape[0], sample_ids_B.shape[0]
    params_VBP = torch.empty(V, B, P.value, dtype=torch.float32, device=sample_ids_B.device)
    if B > 0:
        shapes = config(sample_ids_B.device)
        ids_B, sizes_B2 = sample_ids_B.contiguous(), sizes_B2.contiguous()
        run([sample_launch(shapes, ids_B, sizes_B2, packed_V32, params_VBP, seed, epoch)], sample_ids_B.device)
    return params_VBP


def sample_launch(
    shapes: Config,
    sample_ids_B: Tensor,
    sizes_B2: Tensor,
    packed_V32: Tensor,
    params_VBP: Tensor,
    seed: int,
    epoch: int,
) -> Launch:
    """The launch that fills `params_VBP`."""
    V, B, _ = params_VBP.shape
    words = (_signed(word & 0xFFFFFFFF) for word in (seed, seed >> 32, epoch))
    return Launch(
        sample_kernel,
        (triton.cdiv(B, shapes.params_block), V),
        (sample_ids_B, sizes_B2, packed_V32, params_VBP, *words, B),
        {"BLOCK": shapes.params_block},
        {"num_warps": shapes.params_warps, "enable_fp_fusion": False},
    )


def _signed(word: int) -> int:
    """The int32 of the same bits, so that every value of an argument has one type and one compiled kernel."""
    return word - (1 << 32) if word >= 1 << 31 else word


@triton.jit
def _uniform(word):
    return (word >> 8).to(tl.float64) * (1.0 / 16777216)


@triton.jit
def _between(word, p_policy):
    low = tl.load(p_policy)
    return _uniform(word) * (tl.load(p_policy + 1) - low) + low


@triton.jit
def _take(remaining, index):
    """The 2-bit entry at `index` of a packed list, and the list without it."""
    shift = 2 * index
    entry = (remaining >> shift) & 3
    rest = ((remaining >> (shift + 2)) << shift) | (remaining & ((1 << shift) - 1))
    return entry, rest


@triton.jit
def _order(index):
    """Permutation number 0..23 (Lehmer code) to four packed 2-bit op ids."""
    first, remaining = _take(index * 0 + 0b11_10_01_00, index // 6)
    second, remaining = _take(remaining, index % 6 // 2)
    third, fourth = _take(remaining, index % 2)
    return first | (second << 2) | (third << 4) | (fourth << 6)


@triton.jit(do_not_specialize=["seed_low", "seed_high", "epoch", "B"])
def sample_kernel(
    p_ids,  # int64 [B]
    p_sizes,  # int32 or int64 [B, 2], (height, width)
    p_policies,  # float64 [V, POLICY_COLUMNS]
    p_params,  # float32 [V, B, P]
    seed_low,  # int32 bits
    seed_high,
    epoch,
    B,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    view = tl.program_id(1)
    valid = i < B
    seed = (seed_high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32) | seed_low.to(tl.uint32, bitcast=True)
    sample = tl.load(p_ids + i, mask=valid, other=0)
    c0 = (sample & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((sample >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c2 = c0 * 0 + epoch.to(tl.uint32, bitcast=True)
    slots = c0 * 0 + (view * SLOTS_PER_VIEW).to(tl.uint32)
    H = tl.load(p_sizes + 2 * i, mask=valid, other=1).to(tl.float64)
    W = tl.load(p_sizes + 2 * i + 1, mask=valid, other=1).to(tl.float64)
    p_policy = p_policies + view * POLICY_COLUMNS

    # torchvision's RandomResizedCrop.get_params: the first of ten attempts that fits.
    found = i < 0
    top = H * 0
    left = H * 0
    height = H * 0
    width = H * 0
    for attempt in tl.static_range(CROP_ATTEMPTS):
        u0, u1, u2, u3 = tl.philox(seed, c0, c1, c2, slots + attempt)
        area = H * W * _between(u0, p_policy)
        ratio = tl.exp(_between(u1, p_policy + 2))
        w = tl.floor(tl.sqrt(area * ratio) + 0.5)
        h = tl.floor(tl.sqrt(area / ratio) + 0.5)
        taken = (w > 0) & (w <= W) & (h > 0) & (h <= H) & (found == 0)
        top = tl.where(taken, tl.floor(_uniform(u2) * (H - h + 1)), top)
        left = tl.where(taken, tl.floor(_uniform(u3) * (W - w + 1)), left)
        height = tl.where(taken, h, height)
        width = tl.where(taken, w, width)
        found = found | taken
    # Else the largest central box of an allowed ratio.
    ratio_low = tl.load(p_policy + 4)
    ratio_high = tl.load(p_policy + 5)
    central_w = tl.where(ratio_high < W / H, tl.floor(H * ratio_high + 0.5), W)
    central_h = tl.where(ratio_low > W / H, tl.floor(W / ratio_low + 0.5), H)
    height = tl.where(found, height, central_h)
    width = tl.where(found, width, central_w)
    top = tl.where(found, top, tl.floor((H - central_h) / 2))
    left = tl.where(found, left, tl.floor((W - central_w) / 2))

    a0, a1, a2, a3 = tl.philox(seed, c0, c1, c2, slots + 10)
    b0, b1, b2, b3 = tl.philox(seed, c0, c1, c2, slots + 11)
    d0, d1, d2, d3 = tl.philox(seed, c0, c1, c2, slots + 12)
    e0, e1, _e2, _e3 = tl.philox(seed, c0, c1, c2, slots + 13)
    jitter = _uniform(a0) < tl.load(p_policy + 6)
    blur = _uniform(b3) < tl.load(p_policy + 16)
    solarize = _uniform(d1) < tl.load(p_policy + 19)
    rotated = _uniform(e0) < tl.load(p_policy + 23)
    order = _order((((a1 >> 8) * 24) >> 24).to(tl.int32))

    p = p_params + (view.to(tl.int64) * B + i) * P
    tl.store(p + TOP, top.to(tl.float32), mask=valid)
    tl.store(p + LEFT, left.to(tl.float32), mask=valid)
    tl.store(p + HEIGHT, height.to(tl.float32), mask=valid)
    tl.store(p + WIDTH, width.to(tl.float32), mask=valid)
    tl.store(p + FLIP, tl.where(_uniform(d2) < tl.load(p_policy + 22), 1.0, 0.0), mask=valid)
    tl.store(p + ROTATION, tl.where(rotated, e1 >> 30, 0).to(tl.float32), mask=valid)
    tl.store(p + JITTER, tl.where(jitter, 1.0, 0.0), mask=valid)
    tl.store(p + ORDER, order.to(tl.float32), mask=valid)
    tl.store(p + BRIGHTNESS, tl.where(jitter, _between(a2, p_policy + 7), 1.0).to(tl.float32), mask=valid)
    tl.store(p + CONTRAST, tl.where(jitter, _between(a3, p_policy + 9), 1.0).to(tl.float32), mask=valid)
    tl.store(p + SATURATION, tl.where(jitter, _between(b0, p_policy + 11), 1.0).to(tl.float32), mask=valid)
    tl.store(p + HUE, tl.where(jitter, _between(b1, p_policy + 13), 0.0).to(tl.float32), mask=valid)
    tl.store(p + GRAY, tl.where(_uniform(b2) < tl.load(p_policy + 15), 1.0, 0.0), mask=valid)
    tl.store(p + SIGMA, tl.where(blur, _between(d0, p_policy + 17), 0.0).to(tl.float32), mask=valid)
    tl.store(p + SOLARIZE, tl.where(solarize, _between(d3, p_policy + 20), SOLARIZE_OFF).to(tl.float32), mask=valid)
    tl.store(p + SPARE, tl.zeros((BLOCK,), tl.float32), mask=valid)

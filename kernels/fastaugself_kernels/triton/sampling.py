"""Parameters drawn on the GPU in one launch, with the bits of `sample_params_torch`.

Arithmetic whose result is rounded to a whole number is float64 with one rounding per operation: the launch forbids
fused multiply-adds, which the CPU's arithmetic does not have.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import params
from .columns import HEIGHT, LEFT, POLICY_COLUMNS, TOP, WIDTH, P
from .configs import Config, config
from .launch import Launch, require_device, run

CROP_ATTEMPTS = tl.constexpr(params.CROP_ATTEMPTS)
SLOTS = tl.constexpr(params.SLOTS)
SLOTS_PER_VIEW = tl.constexpr(params.SLOTS_PER_VIEW)
SCALE = tl.constexpr(params.POLICY["scale"])
LOG_RATIO = tl.constexpr(params.POLICY["log_ratio"])
RATIO = tl.constexpr(params.POLICY["ratio"])

ONE = tl.constexpr(params.ONE)
UNIFORM = tl.constexpr(params.UNIFORM)
WHOLE = tl.constexpr(params.WHOLE)
PERMUTATION = tl.constexpr(params.PERMUTATION)
DRAWS = tl.constexpr(len(params.DRAWS))
COLUMN = tl.constexpr(params.DRAW_NUMBERS.column)
KIND = tl.constexpr(params.DRAW_NUMBERS.kind)
WORD = tl.constexpr(params.DRAW_NUMBERS.word)
ARGUMENT = tl.constexpr(params.DRAW_NUMBERS.argument)
GATE = tl.constexpr(params.DRAW_NUMBERS.gate)
PROBABILITY = tl.constexpr(params.DRAW_NUMBERS.probability)
IDENTITY = tl.constexpr(params.DRAW_NUMBERS.identity)


def sample_params_triton(
    sample_ids_B: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, seed: int, epoch: int
) -> Tensor:
    """Draws params_VBP, float32 [V, B, 16], on the device of the ids; arguments as in `sample_params_torch`."""
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
def _words(seed, c0, c1, c2, slots):
    """The words of slots CROP_ATTEMPTS to SLOTS - 1, four per slot, as one tuple."""
    words = ()
    for slot in tl.static_range(CROP_ATTEMPTS, SLOTS):
        words += tl.philox(seed, c0, c1, c2, slots + slot)
    return words


@triton.jit
def _uniform(word):
    return (word >> 8).to(tl.float64) * (1.0 / 16777216)


@triton.jit
def _between(word, p_low):
    low = tl.load(p_low)
    return _uniform(word) * (tl.load(p_low + 1) - low) + low


@triton.jit
def _whole(word, BELOW: tl.constexpr):
    """floor(BELOW * _uniform(word)) in whole numbers."""
    return (((word >> 8) * BELOW) >> 24).to(tl.int32)


@triton.jit
def _take(remaining, index):
    """The 2-bit entry at `index` of a packed list, and the list without it."""
    shift = 2 * index
    entry = (remaining >> shift) & 3
    rest = ((remaining >> (shift + 2)) << shift) | (remaining & ((1 << shift) - 1))
    return entry, rest


@triton.jit
def _order(index):
    """Unpacks permutation number 0..23 (Lehmer code) into four packed 2-bit operation ids."""
    first, remaining = _take(index * 0 + 0b11_10_01_00, index // 6)
    second, remaining = _take(remaining, index % 6 // 2)
    third, fourth = _take(remaining, index % 2)
    return first | (second << 2) | (third << 4) | (fourth << 6)


@triton.jit
def _applied(words, p_policy, n: tl.constexpr):
    """Whether the operation of draw n of `params.DRAWS` is applied."""
    if GATE[n] < 0:
        applied = words[0] == words[0]
    else:
        applied = _uniform(words[GATE[n]]) < tl.load(p_policy + PROBABILITY[n])
    return applied


@triton.jit
def _gates(words, p_policy):
    """For every draw of `params.DRAWS`, whether the operation is applied."""
    gates = ()
    for n in tl.static_range(DRAWS):
        gates += (_applied(words, p_policy, n),)
    return gates


@triton.jit
def _value(words, p_policy, n: tl.constexpr):
    """The value of draw n of `params.DRAWS` where the operation is applied."""
    word = words[WORD[n]]
    if KIND[n] == UNIFORM:
        value = _between(word, p_policy + ARGUMENT[n])
    elif KIND[n] == WHOLE:
        value = _whole(word, ARGUMENT[n]).to(tl.float32)
    elif KIND[n] == PERMUTATION:
        value = _order(_whole(word, ARGUMENT[n])).to(tl.float32)
    elif KIND[n] == ONE:
        value = 1.0
    else:
        value = IDENTITY[n]
    return value


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
        area = H * W * _between(u0, p_policy + SCALE)
        ratio = tl.exp(_between(u1, p_policy + LOG_RATIO))
        w = tl.floor(tl.sqrt(area * ratio) + 0.5)
        h = tl.floor(tl.sqrt(area / ratio) + 0.5)
        taken = (w > 0) & (w <= W) & (h > 0) & (h <= H) & (found == 0)
        top = tl.where(taken, tl.floor(_uniform(u2) * (H - h + 1)), top)
        left = tl.where(taken, tl.floor(_uniform(u3) * (W - w + 1)), left)
        height = tl.where(taken, h, height)
        width = tl.where(taken, w, width)
        found = found | taken
    # Else the largest central box of an allowed ratio.
    ratio_low = tl.load(p_policy + RATIO)
    ratio_high = tl.load(p_policy + RATIO + 1)
    central_w = tl.where(ratio_high < W / H, tl.floor(H * ratio_high + 0.5), W)
    central_h = tl.where(ratio_low > W / H, tl.floor(W / ratio_low + 0.5), H)
    height = tl.where(found, height, central_h)
    width = tl.where(found, width, central_w)
    top = tl.where(found, top, tl.floor((H - central_h) / 2))
    left = tl.where(found, left, tl.floor((W - central_w) / 2))

    words = _words(seed, c0, c1, c2, slots)
    # All gates before the first store, so that the compiler loads what several of them need once.
    gates = _gates(words, p_policy)

    p = p_params + (view.to(tl.int64) * B + i) * P
    tl.store(p + TOP, top.to(tl.float32), mask=valid)
    tl.store(p + LEFT, left.to(tl.float32), mask=valid)
    tl.store(p + HEIGHT, height.to(tl.float32), mask=valid)
    tl.store(p + WIDTH, width.to(tl.float32), mask=valid)
    for n in tl.static_range(DRAWS):
        value = tl.where(gates[n], _value(words, p_policy, n), IDENTITY[n])
        tl.store(p + COLUMN[n], value.to(tl.float32), mask=valid)

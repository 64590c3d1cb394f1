"""Drawing parameters: a pure function of (seed, epoch, sample id, view) and the policy.

The random words of a view are Philox4x32-10 of the key `seed` and the counters (sample id low, sample id high, epoch,
64 * view + slot); the table `DRAWS` in params.py says which word each column is made of. The batch, its order, the
device and the number of processes have no influence.
Arithmetic whose result is rounded to a whole number is float64, so that one ulp of exp or sqrt cannot move a crop.

Shape suffixes: V views, B batch, P parameter columns, S slots, T crop attempts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .backends import INSTALLED
from .params import (
    CONSTANT,
    CROP_ATTEMPTS,
    DRAW_NUMBERS,
    HEIGHT,
    LEFT,
    ONE,
    POLICY,
    SLOTS,
    SLOTS_PER_VIEW,
    TOP,
    UNIFORM,
    WHOLE,
    WIDTH,
    P,
    ViewPolicy,
    packed,
)
from .philox import philox4x32, uniform


def sample_params(
    sample_ids_B: Tensor, sizes_B2: Tensor, policies: Sequence[ViewPolicy], *, seed: int, epoch: int
) -> Tensor:
    """Draws the parameters of every view of every sample.

    sample_ids_B: int64 [B], any 64-bit ids; the same id always gives the same draw.
    sizes_B2: int32 or int64 [B, 2], (height, width) of the decoded images in pixels.
    policies: one ViewPolicy per view.
    seed: any integer of up to 64 bits. epoch: 0 <= epoch < 2**32.
    Returns params_VBP: float32 [V, B, 16] on the device of `sample_ids_B`, columns as in `COLUMNS`.
    Raises ValueError for wrong shapes, dtypes, devices, and for epochs or seeds out of range.
    """
    if isinstance(policies, ViewPolicy):
        raise ValueError(
            "policies must be one ViewPolicy per view, got a single one; pass (policy, policy) for two views"
        )
    policies = tuple(policies)
    _check(sample_ids_B, sizes_B2, policies, seed, epoch)
    packed_V32 = packed(policies, sample_ids_B.device)
    if sample_ids_B.is_cuda:
        from .triton.sampling import sample_params_triton

        return sample_params_triton(sample_ids_B, sizes_B2, packed_V32, seed=seed, epoch=epoch)
    if sample_ids_B.device.type == "cpu" and INSTALLED["numba"] and not torch.compiler.is_compiling():
        from .numba.sampling import sample_params_numba

        return sample_params_numba(sample_ids_B, sizes_B2, packed_V32, seed=seed, epoch=epoch)
    return sample_params_torch(sample_ids_B, sizes_B2, packed_V32, seed=seed, epoch=epoch)


def sample_params_torch(sample_ids_B: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, seed: int, epoch: int) -> Tensor:
    """`sample_params` in plain PyTorch on any device; the numba and Triton samplers give the same bits.

    packed_V32: float64, what `pack_policies` makes of the policies. Other arguments as in `sample_params`.
    """
    V, device = packed_V32.shape[0], sample_ids_B.device
    slots = torch.arange(SLOTS, device=device)[None, :, None]
    views = torch.arange(V, device=device)[:, None, None]
    ids = sample_ids_B[None, None, :]
    epochs = torch.full((1, 1, 1), epoch, dtype=torch.int64, device=device)
    words_4VSB = philox4x32(seed, ids, ids >> 32, epochs, views * SLOTS_PER_VIEW + slots)
    u_4VSB = [uniform(word) for word in words_4VSB]
    policy = packed_V32[:, :, None].unbind(1)  # 32 columns, each [V, 1]

    box = _crop([u[:, :CROP_ATTEMPTS] for u in u_4VSB], sizes_B2, policy)
    columns = dict(zip((TOP, LEFT, HEIGHT, WIDTH), box, strict=True))
    u_W = [u_4VSB[i][:, slot] for slot in range(CROP_ATTEMPTS, SLOTS) for i in range(4)]  # each [V, B]
    one = torch.ones_like(box[0])
    for column, kind, word, argument, gate, probability, identity in zip(*DRAW_NUMBERS, strict=True):
        if kind == CONSTANT:
            value = one * identity
        elif kind == ONE:
            value = one
        elif kind == UNIFORM:
            value = _between(u_W[word], policy, argument)
        elif kind == WHOLE:
            value = torch.floor(u_W[word] * argument)
        else:
            value = _order((u_W[word] * argument).to(torch.int64)).double()
        if gate >= 0:
            value = torch.where(u_W[gate] < policy[probability], value, one * identity)
        columns[column] = value
    return torch.stack([columns[p] for p in range(P)], -1).to(torch.float32)


def _between(u: Tensor, policy: Sequence[Tensor], column: int) -> Tensor:
    low, high = policy[column], policy[column + 1]
    return u * (high - low) + low


def _crop(u_4VTB: Sequence[Tensor], sizes_B2: Tensor, policy: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """torchvision's RandomResizedCrop.get_params: the first of ten attempts that fits, else a central box.

    Returns top, left, height, width, float64 [V, B] each.
    """
    H, W = sizes_B2.double().unbind(1)
    policy_V11 = [column[:, :, None] for column in policy]
    area = H * W * _between(u_4VTB[0], policy_V11, POLICY["scale"])
    ratio = torch.exp(_between(u_4VTB[1], policy_V11, POLICY["log_ratio"]))
    w_VTB = torch.floor(torch.sqrt(area * ratio) + 0.5)
    h_VTB = torch.floor(torch.sqrt(area / ratio) + 0.5)
    fits = (w_VTB > 0) & (w_VTB <= W) & (h_VTB > 0) & (h_VTB <= H)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.any(1)

    def pick(x_VTB: Tensor) -> Tensor:
        return x_VTB.gather(1, first).squeeze(1)

    ratio_low, ratio_high = policy[POLICY["ratio"]], policy[POLICY["ratio"] + 1]
    image_ratio = W / H
    wide, tall = image_ratio > ratio_high, image_ratio < ratio_low
    central_w = torch.where(wide, torch.floor(H * ratio_high + 0.5), W)
    central_h = torch.where(tall, torch.floor(W / ratio_low + 0.5), H)
    h = torch.where(found, pick(h_VTB), central_h)
    w = torch.where(found, pick(w_VTB), central_w)
    top = torch.where(found, pick(torch.floor(u_4VTB[2] * (H - h_VTB + 1))), torch.floor((H - central_h) / 2))
    left = torch.where(found, pick(torch.floor(u_4VTB[3] * (W - w_VTB + 1))), torch.floor((W - central_w) / 2))
    return top, left, h, w


def _order(index: Tensor) -> Tensor:
    """Unpacks permutation number 0..23 (Lehmer code) into four packed 2-bit operation ids."""
    remaining = torch.full_like(index, 0b11_10_01_00)
    packed = torch.zeros_like(index)
    for position, radix in enumerate((6, 2, 1)):
        digit, index = index // radix, index % radix
        packed |= ((remaining >> (2 * digit)) & 3) << (2 * position)
        remaining = ((remaining >> (2 * digit + 2)) << (2 * digit)) | (remaining & ((1 << (2 * digit)) - 1))
    return packed | (remaining & 3) << 6


def _check(sample_ids_B: Tensor, sizes_B2: Tensor, policies: tuple[ViewPolicy, ...], seed: int, epoch: int) -> None:
    for name, value in (("sample_ids_B", sample_ids_B), ("sizes_B2", sizes_B2)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}; pass torch.as_tensor({name})")
    if sample_ids_B.dtype != torch.int64 or sample_ids_B.ndim != 1:
        raise ValueError(
            f"sample_ids_B must be int64 [B], got {sample_ids_B.dtype} {list(sample_ids_B.shape)}; pass ids.long()"
        )
    if sizes_B2.dtype not in (torch.int32, torch.int64) or sizes_B2.shape != (sample_ids_B.shape[0], 2):
        raise ValueError(
            f"sizes_B2 must be int32 or int64 [{sample_ids_B.shape[0]}, 2] (height, width), "
            f"got {sizes_B2.dtype} {list(sizes_B2.shape)}"
        )
    if sizes_B2.device != sample_ids_B.device:
        raise ValueError(f"sizes_B2 is on {sizes_B2.device}, sample_ids_B on {sample_ids_B.device}; move one of them")
    if not policies or not all(isinstance(p, ViewPolicy) for p in policies):
        raise ValueError(f"policies must be one ViewPolicy per view, got {policies!r}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"seed must fit 64 bits, got {seed}")
    if not 0 <= epoch < 1 << 32:
        raise ValueError(f"epoch must be in [0, 2**32), got {epoch}")
    if not sizes_B2.is_cuda and sizes_B2.numel() and int(sizes_B2.min()) < 1:
        raise ValueError(f"sizes_B2 must be at least 1 pixel, got {sizes_B2.min().item()}")

"""Pseudo-random numbers from a counter on the device, the same on all processes and after resuming; no host sync."""

import torch
from torch import Tensor

_FACTORS = (-49064778989728563, -4265267296055464877)


def mixed(x: Tensor) -> Tensor:
    """Hash of int64 numbers: the 64-bit finaliser of MurmurHash3 with signed shifts. Bit 63 is always 0."""
    for factor in _FACTORS:
        x = (x ^ (x >> 33)) * factor
    return x ^ (x >> 33)


def permutation(count: int, number: Tensor) -> Tensor:
    """Pseudo-random permutation of 0 .. count - 1 [count] int64. number: int64 scalar tensor, its index.

    Sorts the positions by their hash.
    """
    x = torch.arange(count, device=number.device) + number * count + 1
    return torch.argsort(mixed(x), stable=True)


def normal(rows: int, columns: int, number: Tensor) -> Tensor:
    """Pseudo-random standard normal matrix [rows, columns] float32. number: int64 scalar tensor, its index.

    Box-Muller transform of the low 24 bits of the hashes.
    """
    count = 2 * rows * columns
    x = mixed(torch.arange(count, device=number.device) + number * count + 1)
    uniform_2RC = (((x & 0xFFFFFF).float() + 0.5) / (1 << 24)).view(2, rows, columns)
    return (-2 * uniform_2RC[0].log()).sqrt() * (2 * torch.pi * uniform_2RC[1]).cos()

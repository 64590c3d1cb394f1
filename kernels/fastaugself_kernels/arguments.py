"""What `augment` refuses: arguments, whose values are not read, and rows, whose values are.

Shape suffixes: V views, B batch, P parameter columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .params import HEIGHT, LEFT, ROTATION, TOP, WIDTH, P

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_arguments(
    pixels: Tensor,
    offsets_B: Tensor | None,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels: int,
    rounding: str,
    blur_kernel: int,
    saturation: str,
) -> None:
    """Checks of the arguments that read no value from the device."""
    for name, value in (
        ("pixels", pixels),
        ("offsets_B", offsets_B),
        ("sizes_B2", sizes_B2),
        ("params_VBP", params_VBP),
    ):
        if not isinstance(value, Tensor) and not (value is None and name == "offsets_B"):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}; pass torch.as_tensor({name})")
    if params_VBP.ndim != 3 or params_VBP.shape[2] != P or params_VBP.dtype != torch.float32:
        raise ValueError(
            f"params_VBP must be float32 [V, B, {P}], got {params_VBP.dtype} {list(params_VBP.shape)}; "
            "draw them with sample_params"
        )
    if params_VBP.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "params_VBP requires a gradient, but augment has none for its parameters; pass params_VBP.detach()"
        )
    V, B = params_VBP.shape[0], params_VBP.shape[1]
    if V == 0 or B == 0:
        raise ValueError(f"params_VBP has {V} views of {B} samples; at least one of each is needed")
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 (as decoded, not normalised), got {pixels.dtype}")
    if not pixels.is_contiguous():
        raise ValueError("pixels must be contiguous; pass pixels.contiguous()")
    if offsets_B is None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.shape[0] != B:
            raise ValueError(
                f"without offsets_B, pixels must be [{B}, H, W, 3] (RGB, channels last), got {list(pixels.shape)}"
            )
    else:
        if pixels.ndim != 1:
            raise ValueError(f"with offsets_B, pixels must be flat [N], got {list(pixels.shape)}; pass pixels.view(-1)")
        if offsets_B.dtype != torch.int64 or offsets_B.shape != (B,):
            raise ValueError(f"offsets_B must be int64 [{B}] (bytes), got {offsets_B.dtype} {list(offsets_B.shape)}")
    if sizes_B2.dtype not in (torch.int32, torch.int64) or sizes_B2.shape != (B, 2):
        raise ValueError(
            f"sizes_B2 must be int32 or int64 [{B}, 2] (height, width), got {sizes_B2.dtype} {list(sizes_B2.shape)}"
        )
    for name, tensor in (("offsets_B", offsets_B), ("sizes_B2", sizes_B2), ("params_VBP", params_VBP)):
        if tensor is not None and tensor.device != pixels.device:
            raise ValueError(f"{name} is on {tensor.device}, pixels on {pixels.device}; move one of them")
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 pixel, got {(height, width)}")
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(f"mean and std must be three values each, std above 0, got {tuple(mean)} and {tuple(std)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    if channels not in (3, 4):
        raise ValueError(f"channels must be 3 (RGB) or 4 (RGB and zeros), got {channels!r}")
    if rounding not in ("uint8", "none"):
        raise ValueError(f'rounding must be "uint8" or "none", got {rounding!r}')
    if saturation not in ("blend", "hsv"):
        raise ValueError(f'saturation must be "blend" (torchvision) or "hsv" (kornia 0.4.1), got {saturation!r}')
    if blur_kernel < 1 or blur_kernel % 2 == 0 or blur_kernel // 2 >= min(height, width):
        raise ValueError(
            f"blur_kernel must be odd and below twice the output size {(height, width)} (its borders are reflected), "
            f"got {blur_kernel}"
        )


def check_rows(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
) -> None:
    """Checks of the values: images must be inside `pixels`, crops inside their images."""
    larger_B = sizes_B2[:, 1].long() * 3 > strides_B
    if pixels.ndim == 4:
        larger_B |= sizes_B2[:, 0] > pixels.shape[1]
    if _any(larger_B, "an image is larger than its place in pixels: sizes_B2 is (height, width)"):
        b = int(larger_B.nonzero()[0])
        place = list(pixels.shape[1:3]) if pixels.ndim == 4 else f"{int(strides_B[b])} bytes a row"
        raise ValueError(
            f"image {b} of (height, width) = {sizes_B2[b].tolist()} does not fit its place in pixels, {place}; pass "
            "sizes_B2 as (height, width), not (width, height)"
        )
    ends_B = offsets_B + strides_B.long() * (sizes_B2[:, 0].long() - 1) + sizes_B2[:, 1].long() * 3
    wrong_B = (offsets_B < 0) | (sizes_B2.amin(1) < 1) | (ends_B > pixels.numel())
    if _any(wrong_B, "an image does not fit the bytes of pixels: see offsets_B and sizes_B2"):
        b = int(wrong_B.nonzero()[0])
        raise ValueError(
            f"image {b} at offset {offsets_B[b].item()} of size {sizes_B2[b].tolist()} does not fit the "
            f"{pixels.numel()} bytes of pixels; sizes are (height, width), offsets in bytes"
        )
    unknown_VBP = ~torch.isfinite(params_VBP)
    if _any(unknown_VBP, "params_VBP contains NaN or Inf"):
        v, b, p = unknown_VBP.nonzero()[0].tolist()
        raise ValueError(f"params_VBP[{v}, {b}, {p}] is {params_VBP[v, b, p].item()}; NaN and Inf cannot be applied")
    y, x, h, w = (params_VBP[..., column] for column in (TOP, LEFT, HEIGHT, WIDTH))
    H, W = sizes_B2.float().unbind(1)
    outside_VB = (y < 0) | (x < 0) | (h < 1) | (w < 1) | (y + h > H) | (x + w > W)
    if _any(outside_VB, "a row of params_VBP crops outside its image"):
        v, b = outside_VB.nonzero()[0].tolist()
        raise ValueError(
            f"params_VBP[{v}, {b}] crops (top, left, height, width) = {params_VBP[v, b, :4].tolist()} outside its "
            f"image of (height, width) = {sizes_B2[b].tolist()}"
        )
    turned_VB = params_VBP[..., ROTATION].long() % 2 == 1
    if height != width and _any(turned_VB, "a quarter turn needs a square output"):
        raise ValueError(f"a quarter turn needs a square output, got size {(height, width)}")


def _any(wrong: Tensor, message: str) -> bool:
    """Whether any is True. On a GPU, to avoid a host sync: False, and a device-side assertion that none is."""
    if wrong.device.type == "cpu":
        return bool(wrong.any())
    torch._assert_async(~wrong.any(), message)
    return False

"""NVIDIA's libraries on batches: DALI and CV-CUDA, used as documented for DALI 2.4 and CV-CUDA 0.15.

Neither has torchvision's colour jitter; a linear map of colours replaces it. ImportError says what to install.
"""

from typing import Any

import torch
from torch import Tensor

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from .work import Ready, Work


def dali(work: Work) -> Ready:
    """DALI with color_twist, a linear map, instead of the jitter; contrast about 0.5, gray as saturation 0."""
    try:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import feed_ndarray
    except ImportError as error:
        raise ImportError(f"pip install nvidia-dali-cuda120 ({error})") from None
    pixels, size = work.pixels_BHWC, work.size

    @pipeline_def(batch_size=work.batch, num_threads=4, device_id=pixels.device.index or 0, seed=0)
    def views() -> Any:
        photos = fn.external_source(source=lambda: pixels, device="gpu", layout="HWC", no_copy=True)
        x = fn.random_resized_crop(photos, size=size, random_area=(0.2, 1.0), random_aspect_ratio=(3 / 4, 4 / 3))

        def chosen(probability: float) -> Any:
            return fn.random.coin_flip(probability=probability, dtype=types.FLOAT)

        jitter, gray, blur = chosen(0.8), chosen(0.2), chosen(0.5)
        factors = [1 + jitter * fn.random.uniform(range=(-0.4, 0.4)) for _ in range(3)]
        hue = jitter * fn.random.uniform(range=(-36.0, 36.0))  # degrees
        x = fn.color_twist(x, brightness=factors[0], contrast=factors[1], saturation=factors[2] * (1 - gray), hue=hue)
        sigma = blur * fn.random.uniform(range=(0.1, 2.0)) + (1 - blur) * 0.01  # 0 would select its default
        x = fn.gaussian_blur(x, sigma=sigma, window_size=23)
        return fn.crop_mirror_normalize(
            x,
            dtype=types.FLOAT,
            output_layout="CHW",
            mirror=fn.random.coin_flip(),
            mean=[255 * m for m in IMAGENET_MEAN],
            std=[255 * s for s in IMAGENET_STD],
        )

    pipeline = views()
    pipeline.build()
    out = torch.empty(work.views, work.batch, 3, size, size, device=pixels.device)

    def call() -> Tensor:
        for view in out:
            feed_ndarray(pipeline.run()[0].as_tensor(), view, cuda_stream=torch.cuda.current_stream())
        return out.flatten(0, 1)

    return Ready(call, work.views * work.batch)


def cvcuda(work: Work) -> Ready:
    """CV-CUDA with color_twist, a linear map of colours, instead of the jitter. Its resize does not antialias."""
    try:
        import cvcuda as cv
    except ImportError as error:
        raise ImportError(f"pip install cvcuda-cu12 ({error})") from None
    device, B, size = work.device, work.batch, work.size

    def images(tensors: Tensor) -> Any:
        batch = cv.ImageBatchVarShape(B)
        batch.pushback([cv.as_image(x, cv.Format.RGB8) for x in tensors])
        return batch

    photos = images(work.pixels_BHWC)
    blurred_BHWC = torch.empty(B, size, size, 3, dtype=torch.uint8, device=device)
    out = images(blurred_BHWC)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    seed = 0

    def call() -> Tensor:
        nonlocal seed
        views = []
        for _ in range(work.views):
            seed += 1
            x = cv.random_resized_crop(photos, [(size, size)] * B, 0.2, 1.0, 3 / 4, 4 / 3, cv.Interp.LINEAR, seed)
            x = cv.color_twist(x, cv.as_tensor(color_matrices(B, device), "NHW"))
            sigma, taps = _blurs(B, device)
            border = cv.Border.REFLECT101
            cv.gaussian_into(out, x, (23, 23), cv.as_tensor(taps, "NC"), cv.as_tensor(sigma, "NC"), border)
            y = blurred_BHWC.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
            views.append(torch.where(torch.rand(B, 1, 1, 1, device=device) < 0.5, y.flip(3), y))
        return torch.cat(views)

    return Ready(call, work.views * B)


LUMA = (0.299, 0.587, 0.114)


def color_matrices(count: int, device: torch.device) -> Tensor:
    """Jitter as linear maps of colours in 0..255, float32 [count, 3, 4]: brightness, contrast about 127.5, saturation,
    hue as a rotation about the gray axis, and gray, at MoCo v2's ranges and probabilities."""

    def random(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, device=device) * (high - low) + low

    def chosen(probability: float) -> Tensor:
        return torch.rand(count, 1, 1, device=device) < probability

    one = torch.eye(3, device=device)
    to_gray = torch.tensor(LUMA, device=device).expand(3, 3)
    axis = torch.full((3, 3), 1 / 3, device=device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / 3**0.5
    angle = random(-0.1, 0.1) * 2 * torch.pi
    hue = axis + angle.cos() * (one - axis) + angle.sin() * cross
    saturation, contrast, brightness = (random(0.6, 1.4) for _ in range(3))
    linear = brightness * contrast * hue @ (saturation * one + (1 - saturation) * to_gray)
    offset = brightness * (1 - contrast) * 127.5 * torch.ones(3, 1, device=device)
    jittered = torch.cat([linear, offset], 2)
    identity = torch.cat([one, torch.zeros(3, 1, device=device)], 1)
    maps = torch.where(chosen(0.8), jittered, identity)
    return torch.where(chosen(0.2), to_gray @ maps, maps).contiguous()


def _blurs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sigma (float64) and taps (int32) of each photo in both directions, [count, 2]; one tap means no blur."""
    blurred = torch.rand(count, 1, device=device) < 0.5
    sigma = (torch.rand(count, 1, device=device, dtype=torch.float64) * 1.9 + 0.1).expand(-1, 2).contiguous()
    return sigma, torch.where(blurred, 23, 1).to(torch.int32).expand(-1, 2).contiguous()

"""SER: inner patch features of a view are carried to the frame of another and matched (Lee 2026, arXiv 2603.06693).

A small share of the photos gives two further views of the same crop, each with its own colours and its own rotation by
quarter turns and flip. At an early block of a ViT, the feature map of the momentum encoder for one view is transported
to the frame of the other (exactly: positions are permuted) and compared patch by patch, after a head e of two 1 x 1
convolutions. With query patches u_j of the encoder, transported key patches v_j, and cosines s divided by T:

    L_0 = mean_j [log(e^{s_jj} + sum over i of other photos e^{s_ij}) - s_jj],    L = L_base + weight * (L_0 + L_1) / 2

for both directions, with the patches of all processes. Published: weight 1, T 0.5, block 3 of 12, 1 % of the photos,
MoCo v3 on a ViT-S/16. Where the method has no momentum encoder, the encoder's own maps are the keys, with a gradient.

Different from the published code (github.com/aitrics-chris/SER): views are square and not resized (theirs are 0.7 to
1.3 times as large, of other aspect ratios, and positions are interpolated); flips and rotations are drawn for each view
by itself (theirs are such that view 1 and view 2 differ by the same element for all photos of a step); both views have
the photometric policy of view 1 (theirs have one each); the photos keep their two views in the base method (theirs,
20 of 2048 in all, have these two instead; here each process rounds its own share); tokens are normalised without
weights (theirs have a layer norm of their own); and timm's class token takes part from the first block (theirs joins
after block 3). The head's convolutions have no biases, as in the code.

Shape suffixes: V views, B batch, N both views of it, C channels, H W, P parameter columns, L patches, S all patches of
the queries, K all patches of the keys.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.params import FLIP, ROTATION

from ..distributed import gather_with_gradient, rank, world_size
from ..errors import UsageError
from ..models.inner import check_layers, inner_map, layer_widths, patch_size
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    Setting,
    ViewRequest,
    above_zero,
    at_least,
    register_aware,
)


@register_aware("ser")
@dataclass(frozen=True)
class SER(AwareConfig):
    """SER: patch features of an inner block of a ViT are carried to the frame of the other view and matched."""

    fixed_size = True
    title = "SER"

    weight: float = 1.0
    """Weight of the loss; 0 = off."""
    temperature: float = 0.5
    """Temperature of the loss."""
    layer: str = "block3"
    """Block of the ViT whose patch features are matched."""
    fraction: float = 0.01
    """Fraction of the photos of a process that give the two further views, at least two photos; memory for similarities
    grows with its square."""
    hidden: int = 512
    """Width of the two convolutions of the head."""
    only: bool = False
    """Train on this loss alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        above_zero(self, "temperature", "fraction")
        at_least(self, 1, "hidden")
        if self.fraction > 1:
            raise UsageError(
                f"--ser.fraction must be at most 1, got {self.fraction}; pass --ser.fraction {SER.fraction}"
            )

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        policy = replace(policies[0], flip=0.5, rotation=1.0)
        return (ViewRequest(policy, count=2, same=("crop",), fraction=self.fraction, encode=False),)

    def check(self, setting: Setting) -> None:
        if not setting.backbone.name.startswith("timm:"):
            raise UsageError(
                f"--ser.weight {self.weight:g} needs a ViT, got --backbone.name {setting.backbone.name}; pass "
                "--backbone.name timm:vit_small_patch16_224, or --ser.weight 0"
            )

    def check_backbone(self, backbone: nn.Module, setting: Setting) -> None:
        """Refuses backbones without maps of patch tokens, and views that are not whole patches wide."""
        without, size = f"--ser.weight {self.weight:g}", setting.policies[0].size
        if not any(layer.startswith("block") for layer in layer_widths(backbone)):
            raise UsageError(
                f"{without} needs a ViT, and {setting.backbone.name} has no blocks of patch tokens; pass "
                "--backbone.name timm:vit_small_patch16_224, or --ser.weight 0"
            )
        check_layers(backbone, (self.layer,), "--ser.layer", "--ser.weight 0")
        patch = patch_size(backbone, self.layer)
        if size % patch:
            raise UsageError(
                f"{without}: views of {size} pixels are no whole number of patches of {patch}, which a flip would "
                f"permute; pass --view.size {max(1, size // patch) * patch}, or --ser.weight 0"
            )

    def build(self, context: AwareContext) -> "SERObjective":
        return SERObjective(self, context)


class SERObjective(AwareObjective):
    """The head on feature maps of the inner layer."""

    config: SER

    def __init__(self, config: SER, context: AwareContext) -> None:
        super().__init__(config)
        channels, hidden = context.layer_widths[config.layer], config.hidden
        (request,) = config.requests(context.policies)
        self.photos = request.photos(context.batch_size)
        """Number of photos on each process."""
        self.patches = (request.policy.size // patch_size(context.method.backbone, config.layer)) ** 2
        """Number of patches per view."""
        self.head = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.GELU(), nn.Conv2d(hidden, hidden, 1, bias=False)
        )

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The loss; the share of patches whose own key beats those of other photos; the mean cosine of own keys."""
        made, layer = inputs.extra[0].views, self.config.layer
        x_NCHW, momentum = made.x_VBCHW.flatten(0, 1), inputs.method.momentum_backbone
        queries = keys = self.embedded(inner_map(inputs.method.backbone, x_NCHW, layer))
        if momentum is not None:
            with torch.no_grad():
                map_NCHW = inner_map(momentum, x_NCHW, layer)
            keys = self.embedded(map_NCHW)
        results = []
        for a, b in ((0, 1), (1, 0)):  # queries of view b, keys of view a
            carried = transported(keys[a], made.params_VBP[a], made.params_VBP[b])
            results.append(patch_loss(queries[b], carried, self.config.temperature))
        loss, accuracy, cosine = (torch.stack(values).mean() for values in zip(*results, strict=True))
        return AwareOutput({"ser": loss}, {"ser_accuracy": accuracy, "ser_cosine": cosine})

    def embedded(self, map_NCHW: Tensor) -> tuple[Tensor, ...]:
        """L2-normalised embeddings [B, C, H, W] of each view. map_NCHW: of one view after the other."""
        return F.normalize(self.head(map_NCHW).float(), dim=1).chunk(2)

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """The loss if all patches are equal: log(1 + number of patches of other photos)."""
        others = (self.photos * world_size() - 1) * self.patches
        return {"ser": params_VBP.new_tensor(math.log(1 + others))}


def transported(map_BCHW: Tensor, from_BP: Tensor, to_BP: Tensor) -> Tensor:
    """The map of a view in the frame of another view of the same crop, by a permutation of its positions.

    from_BP, to_BP: parameters of both views. The kernels rotate the crop, then flip it: undone in reverse order.
    """
    side = map_BCHW.shape[3]
    turns_B1 = ((to_BP[:, ROTATION] - from_BP[:, ROTATION]).long() % 4)[:, None]
    flipped_B1, flip_B1 = (rows_BP[:, FLIP, None] > 0.5 for rows_BP in (from_BP, to_BP))
    place_L = torch.arange(side * side, device=map_BCHW.device)
    y, x = place_L // side, place_L % side
    x = torch.where(flip_B1, side - 1 - x, x)  # [B, L] from here on
    for turn in (1, 2, 3):  # np.rot90(a)[y, x] is a[x, side - 1 - y]
        y, x = torch.where(turns_B1 >= turn, x, y), torch.where(turns_B1 >= turn, side - 1 - y, x)
    x = torch.where(flipped_B1, side - 1 - x, x)
    tokens_BCL = map_BCHW.flatten(2)
    carried_BCL = tokens_BCL.gather(2, (y * side + x)[:, None].expand_as(tokens_BCL))
    return carried_BCL.unflatten(2, (side, side))


def patch_loss(query_BCHW: Tensor, key_BCHW: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE of patches against the key at the same place and all keys of other photos of all processes.

    query_BCHW, key_BCHW: L2-normalised. Returns the mean loss, the share of patches whose own key is the most similar
    of these, and the mean cosine similarity to it, the last two without gradient.
    """
    B, L = len(query_BCHW), query_BCHW[0, 0].numel()
    query_SC = query_BCHW.flatten(2).transpose(1, 2).flatten(0, 1)
    key_KC = gather_with_gradient(key_BCHW.flatten(2).transpose(1, 2).flatten(0, 1).contiguous())
    with torch.autocast(query_SC.device.type, enabled=False):
        logits_SK = query_SC @ key_KC.T / temperature
    own_S = torch.arange(B * L, device=query_SC.device) + rank() * B * L
    keys_K = torch.arange(len(key_KC), device=query_SC.device)
    same_photo_SK = (own_S // L)[:, None] == (keys_K // L)[None]
    excluded_SK = same_photo_SK & (own_S[:, None] != keys_K[None])
    logits_SK = logits_SK.masked_fill(excluded_SK, float("-inf"))
    cosine = logits_SK.detach().gather(1, own_S[:, None]).mean() * temperature
    correct = (logits_SK.detach().argmax(1) == own_S).float().mean()
    return F.cross_entropy(logits_SK, own_S), correct, cosine

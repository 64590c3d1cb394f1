"""Augmentation policies by name, for `fastaugself views`."""

from dataclasses import replace

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from .words import Policies

POLICY_NAMES = ("moco_v2", "simclr", "byol", "spatial", "appearance", "none")


def named_policies(name: str, size: int) -> Policies:
    """The policies of both views; size: of the views in pixels. Raises UsageError for an unknown name."""
    if name == "byol":
        return ViewPolicy.byol(0, size), ViewPolicy.byol(1, size)
    if name not in POLICY_NAMES:
        raise UsageError(f"--policy {name} is unknown; pass all, {', '.join(POLICY_NAMES)}")
    policy: ViewPolicy = getattr(ViewPolicy, name)(size)
    return policy, policy


def local_policy(policies: Policies) -> ViewPolicy:
    """The policy of local crops: size ratio (96 to 224 px) and areas of SwAV (Caron 2020, arXiv 2006.09882)."""
    return replace(policies[0], size=max(8, round(policies[0].size * 96 / 224)), scale=(0.05, 0.14))

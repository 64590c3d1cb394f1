"""The policies that `fastaugself views` knows by name."""

from dataclasses import replace

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from .words import Policies

POLICY_NAMES = ("moco_v2", "simclr", "byol", "spatial", "appearance", "none")


def named_policies(name: str, size: int) -> Policies:
    """The policies of both views; UsageError for an unknown name."""
    if name == "byol":
        return ViewPolicy.byol(0, size), ViewPolicy.byol(1, size)
    if name not in POLICY_NAMES:
        raise UsageError(f"--policy {name} is unknown; known are all, {', '.join(POLICY_NAMES)}")
    policy: ViewPolicy = getattr(ViewPolicy, name)(size)
    return policy, policy


def local_policy(policies: Policies) -> ViewPolicy:
    """The small views that go with two views: SwAV's 96 px and areas beside 224 px (Caron 2020, arXiv 2006.09882)."""
    return replace(policies[0], size=max(8, round(policies[0].size * 96 / 224)), scale=(0.05, 0.14))

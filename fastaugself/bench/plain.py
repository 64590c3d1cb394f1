"""MoCo's step in the style of research code: the first rung of `bench step`.

The loss is He 2019 (arXiv 1911.05722), eq. 1, written out: a copy of the queue, logits against all of it, cross
entropy. Networks and heads are those of the trainer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..aware.learner import Learner
from ..methods.base import Views
from ..methods.moco import MoCoMethod


class PlainMoCoStep:
    """One eager step. loops: update parameters one by one in Python, with a host sync for loss and queue position."""

    def __init__(self, learner: Learner, lr: float, *, loops: bool) -> None:
        assert isinstance(learner.method, MoCoMethod)
        self.learner, self.method, self.loops = learner, learner.method, loops
        trained = [p for p in learner.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=lr, momentum=0.9, weight_decay=1e-4, foreach=not loops)

    def __call__(self, views: Views) -> Tensor:
        """Makes one step and returns its total loss."""
        method, config = self.method, self.method.config
        f1_BD = method.backbone(views.x_VBCHW[0])
        q_BE = F.normalize(method.projector(f1_BD, views.condition(0)), dim=1)
        with torch.no_grad():
            f2_BD = method.key_backbone(views.x_VBCHW[1])
            k_BE = F.normalize(method.key_projector(f2_BD, views.condition(1)), dim=1)
        positive_B1 = (q_BE * k_BE).sum(1, keepdim=True)
        negative_BK = q_BE @ method.queue_KE.clone().detach().T
        logits = torch.cat([positive_B1, negative_BK], 1) / config.temperature
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
        augself = self.learner.augself
        if augself is not None and views.params_VBP is not None and views.sizes_B2 is not None:
            losses = augself.losses(augself.predict(f1_BD, f2_BD), augself.targets(views.params_VBP, views.sizes_B2))
            for name, value in losses.items():
                loss = loss + augself.config.weights[name] * value
        self.optimizer.zero_grad(set_to_none=not self.loops)
        loss.backward()
        self.optimizer.step()
        if self.loops:
            self._update_in_a_loop(k_BE)
            loss.item()
        else:
            method.update_ema(0.0)
            method.update_queue((k_BE,), 0.0)
        return loss.detach()

    @torch.no_grad()
    def _update_in_a_loop(self, k_BE: Tensor) -> None:
        method = self.method
        pairs = ((method.key_backbone, method.backbone), (method.key_projector, method.projector))
        for key, query in pairs:
            for p, q in zip(key.parameters(), query.parameters(), strict=True):
                p.data = p.data * method.config.momentum + q.data * (1 - method.config.momentum)
        first = int(method.pointer)
        method.queue_KE[first : first + len(k_BE)] = k_BE
        method.pointer.fill_((first + len(k_BE)) % len(method.queue_KE))

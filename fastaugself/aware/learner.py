"""The module that is trained: a base method with aware objectives, compiled, wrapped in DDP and checkpointed as one."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..methods.base import Method, Output, Views
from ..methods.encoder_only import EncoderOnly
from ..models.inner import InnerFeatures
from .augself import AugSelfLoss
from .base import AwareInputs, AwareObjective, Extra, ViewRequest, unique
from .descriptors import Descriptors


class StepOutput(NamedTuple):
    """The losses of one batch.

    loss: scalar to differentiate. metrics: detached scalars by name, `loss` first. queue_update: argument of
    `Method.update_queue`. feature_std: collapse metric of the first view's features (see `feature_std`), detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    queue_update: tuple[Tensor, ...]
    feature_std: Tensor


def feature_std(f_BD: Tensor) -> Tensor:
    """Collapse metric of SimSiam: std over the batch of L2-normalised features, mean over D, times sqrt(D).

    0 if all samples have the same features (collapse), 1 if features are uniform on the sphere (Chen and He 2020,
    arXiv 2011.10566, section 4.1). Returns a detached float32 scalar.
    """
    f_BD = F.normalize(f_BD.detach().float(), dim=1)
    return f_BD.std(0, correction=0).mean() * f_BD.shape[1] ** 0.5


class Learner(nn.Module):
    """A base method plus aware objectives: views to the total loss.

    objectives: by name. requests: the extra views that each objective asks for, by its name; `Views.extra` has each
    different request once, in the order of the attribute `requests`.
    """

    def __init__(
        self,
        method: Method,
        objectives: Mapping[str, AwareObjective] | None = None,
        *,
        requests: Mapping[str, tuple[ViewRequest, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.objectives = nn.ModuleDict(objectives or {})
        self.requests = unique(requests or {})
        self.requested = {
            name: tuple(self.requests.index(request) for request in wanted) for name, wanted in (requests or {}).items()
        }
        self._layers = tuple(dict.fromkeys(layer for o in (objectives or {}).values() for layer in o.config.layers))

    def forward(self, views: Views) -> StepOutput:
        inner = InnerFeatures(self._layers) if self._layers else None
        output: Output = self.method(views._replace(inner=inner))
        loss = output.loss
        metrics = {"loss": loss}
        if not isinstance(self.method, EncoderOnly):
            metrics["loss_ssl"] = output.loss
        metrics.update(output.metrics)
        if self.objectives:
            inputs = self._inputs(views, output, inner)
        for objective_name, objective in self.aware.items():
            extra = tuple(inputs.extra[i] for i in self.requested.get(objective_name, ()))
            result = objective(inputs._replace(extra=extra))
            for name, weight in objective.config.weights.items():
                loss = loss + weight * result.losses[name]
                metrics["loss_" + name] = result.losses[name]
            metrics.update(result.metrics)
        metrics["loss"] = loss
        detached = {name: value.detach() for name, value in metrics.items()}
        return StepOutput(loss, detached, output.queue_update, feature_std(output.features[0]))

    @property
    def aware(self) -> dict[str, AwareObjective]:
        """The objectives by name, as `objectives`, with their type."""
        return cast(dict[str, AwareObjective], dict(self.objectives.items()))

    @property
    def augself(self) -> AugSelfLoss | None:
        """The AugSelf heads, if they are trained."""
        return cast(AugSelfLoss | None, self.aware.get("augself"))

    def update_ema(self, progress: float) -> None:
        """Updates the EMA encoders of the method and of the objectives. progress: fraction of the run that is done."""
        self.method.update_ema(progress)
        for objective in self.aware.values():
            objective.update_ema(self.method, progress)

    def initialize(self, params_VBP: Tensor, sizes_B2: Tensor) -> None:
        """Fits what depends on the distribution of the parameters, before the first step of a run.

        params_VBP: many draws of the two global views. sizes_B2: (height, width) of their photos.
        """
        for module in self.modules():
            if isinstance(module, Descriptors):
                module.fit(params_VBP, sizes_B2)

    def _inputs(self, views: Views, output: Output, inner: InnerFeatures | None) -> AwareInputs:
        if views.params_VBP is None or views.sizes_B2 is None:
            raise ValueError("aware objectives need the parameters of the views: pass params_VBP and sizes_B2")
        if inner is not None and len(inner.maps) != 2:
            raise ValueError(
                f"{type(self.method).__name__} does not encode both views with Method.encode or encode_view, so there "
                f"are no features of {', '.join(inner.layers)}"
            )
        extra = []
        for request, made in zip(self.requests, views.extra, strict=True):
            features = [self.method.backbone(x_BCHW) for x_BCHW in made.x_VBCHW] if request.encode else []
            extra.append(Extra(made, torch.stack(features) if features else None))
        maps = (inner.maps[0], inner.maps[1]) if inner is not None else ({}, {})
        return AwareInputs(output.features, views.params_VBP, views.sizes_B2, maps, tuple(extra), views, self.method)

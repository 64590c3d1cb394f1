"""The predictor that a run trained itself (EquiMod, SEN, SIE, seq-JEPA), for `eval equivariance`.

Shape suffixes: N photos, K views of each photo, B pairs, D features, E embedding, P parameter columns, n condition
columns, 2 = (height, width).
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..aware.base import AwareObjective
from ..aware.equimod import EquiMod
from ..errors import UsageError
from ..runs.checkpoint import checkpoints
from ..runs.open import load_learner
from .encoder import Encoder


class OwnPredictor:
    """An objective of a run as a `ViewPredictor`; in evaluation mode.

    objective: has `embed_view`, `predict_view` and `descriptors`. projector: of the base method, which EquiMod with
    experts shares.
    """

    def __init__(self, objective: AwareObjective, projector: nn.Module | None) -> None:
        self.objective: Any = objective.requires_grad_(False).eval()
        self.title = objective.config.title
        self.from_plain = isinstance(objective.config, EquiMod)
        """Whether it predicts from the plain view of a photo instead of another view."""
        self._shared = (projector,) if self.from_plain else ()

    def condition(self, params_KNP: Tensor, sizes_N2: Tensor) -> Tensor:
        """The standardised parameters that it reads, [N, K, n]."""
        a_KNn: Tensor = self.objective.descriptors(params_KNP, sizes_N2)
        return a_KNn.transpose(0, 1)

    def embed_view(self, f_BD: Tensor) -> Tensor:
        """The embeddings [B, E] of views."""
        y_BE: Tensor = self.objective.embed_view(f_BD, *self._shared)
        return y_BE

    def predict_view(self, f_BD: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """The predicted embeddings [B, E] of the views with parameters a_to."""
        yhat_BE: Tensor = self.objective.predict_view(self.embed_view(f_BD), a_from_Bn, a_to_Bn)
        return yhat_BE


def own_predictor(encoder: Encoder) -> OwnPredictor | None:
    """The predictor of a run's newest readable checkpoint; None for an encoder without one."""
    run = Path(encoder.source)
    if not run.is_dir() or not checkpoints(run / "checkpoints"):
        return None
    try:
        learner = load_learner(run).learner
    except UsageError:  # a method that no --recipe registers
        return None
    for objective in learner.aware.values():
        if hasattr(objective, "predict_view"):
            projector = getattr(learner.method, "projector", None)
            return OwnPredictor(objective, projector.eval() if isinstance(projector, nn.Module) else None)
    return None

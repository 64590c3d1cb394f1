"""Online evaluation during training: k-NN, linear probe, effective rank (RankMe), and known factors of the photos."""

import logging
import time
from typing import Any

import torch
from torch import Tensor

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..data.classes import match_classes
from ..data.loader import Loader
from ..probes.extract import Features, extract
from ..probes.knn import knn_accuracy
from ..probes.rankme import rankme
from ..probes.ridge import ridge_accuracy, ridge_r2
from .logs import RunLog

log = logging.getLogger(__name__)

COLLAPSED_RANK = 2.0  # an effective rank below it means at most one useful direction
FEW_PHOTOS = 32  # the rank of the features of fewer photos is low whatever they are
BANK = 20_000  # maximum number of training samples for k-NN and probes, a random subset


class OnlineEvaluation:
    """Evaluates the backbone on `--data.val` with features of a subset of the training photos, on rank 0.

    config: with both data.train and data.val. train: loader of the training photos. The classes of both are matched by
    name. Raises UsageError for photos of `--data.val` whose classes are not those of `--data.train`.
    """

    def __init__(self, config: Pretrain, learner: Learner, train: Loader, device: torch.device) -> None:
        self.config, self.device = config, device
        self.backbone = learner.method.backbone
        if config.data.train is None or config.data.val is None:
            raise ValueError("online evaluation needs training and validation photos: pass --data.train and --data.val")
        batch_size = min(256, train.num_samples)
        common: dict[str, Any] = {
            "batch_size": batch_size,
            "source": "native",
            "workers": config.data.workers,
            "max_corrupt": config.data.max_corrupt,
        }
        self.loaders = (
            Loader(config.data.train, order="random", drop_last=False, device=device, **common),
            Loader(config.data.val, order="sequential", drop_last=False, device=device, **common),
        )
        try:
            self._class_numbers = self._match()
        except BaseException:
            self.close()
            raise

    def _match(self) -> Tensor:
        """For each class of the validation photos, its number among the classes of the training photos."""
        train, val = self.loaders
        match = match_classes(train.known_classes, val.known_classes, names=(train.name, val.name))
        if match.assumed:
            log.warning("%s", match.assumed)
        for loader in self.loaders if train.known_classes.used and val.known_classes.used else ():
            if without := int((loader.labels_N < 0).sum()):
                text = "%s: %d of %d photos have no label and are left out of k-NN and linear"
                log.warning(text, loader.name, without, loader.num_samples)
        return torch.from_numpy(match.numbers_C)

    def close(self) -> None:
        """Closes the data files."""
        for loader in self.loaders:
            loader.close()

    def due(self, step: int, steps_per_epoch: int, end: int) -> bool:
        """Whether to evaluate after this step. end: the last step."""
        every = self.config.log.knn_epochs
        if step == end:
            return True
        return every > 0 and int(step / (every * steps_per_epoch)) > int((step - 1) / (every * steps_per_epoch))

    def run(self, step: int, epoch: float, run_log: RunLog) -> dict[str, Any]:
        """Extracts features, evaluates them, and writes a line to evaluations.jsonl, which is returned.

        step, epoch: for the record.
        """
        began = time.perf_counter()
        bank, queries = (
            extract(
                self.backbone,
                loader,
                size=self.config.view.size,
                mean=self.config.augment.mean,
                std=self.config.augment.std,
                device=self.device,
                limit=limit,
                channels_last=self.config.channels_last,
                backend=self.config.augment.backend,
            )
            for loader, limit in zip(self.loaders, (BANK, None), strict=True)
        )
        record: dict[str, Any] = {"step": step, "epoch": epoch, "rankme": rankme(queries.features_ND[:2048])}
        voters_N, asked_N = bank.labels_N >= 0, queries.labels_N >= 0
        if bool(voters_N.any()) and bool(asked_N.any()):
            labels_N = self._class_numbers[queries.labels_N[asked_N]]
            data = (bank.features_ND[voters_N], bank.labels_N[voters_N], queries.features_ND[asked_N], labels_N)
            record["knn"], record["linear"] = knn_accuracy(*data), ridge_accuracy(*data)
        for name, targets in factor_targets(self.loaders).items():
            record["r2_" + name] = _r2(bank, queries, *targets)
        record["seconds"] = time.perf_counter() - began
        parts = [f"{name} {value:.3f}" for name, value in record.items() if name not in ("step", "epoch", "seconds")]
        run_log.evaluation(record, f"evaluation at step {step}: " + "  ".join(parts))
        if record["rankme"] < COLLAPSED_RANK and len(queries.labels_N) >= FEW_PHOTOS:
            log.warning(
                "the features of %s have collapsed or nearly so (effective rank %.1f): try a lower "
                "--optim.lr or a longer --optim.warmup-epochs",
                self.config.data.val,
                record["rankme"],
            )
        return record


def factor_targets(loaders: tuple[Loader, Loader]) -> dict[str, tuple[Tensor, Tensor]]:
    """Known factors in both data sets as regression targets [N, T]; a hue (in turns) as cosine and sine.

    A factor equal to the label is left out, because k-NN and the linear probe cover it.
    """
    targets = {}
    train, val = (loader.columns for loader in loaders)
    labels = loaders[0].labels_N.tolist()
    for name in sorted(train.keys() & val.keys()):
        if train[name] == labels:
            continue
        columns = [torch.as_tensor(side[name], dtype=torch.float64) for side in (train, val)]
        if name == "hue":
            columns = [torch.stack([torch.cos(c * 2 * torch.pi), torch.sin(c * 2 * torch.pi)], 1) for c in columns]
        targets[name] = tuple(c if c.ndim == 2 else c[:, None] for c in columns)
    return targets  # type: ignore[return-value]


def _r2(bank: Features, queries: Features, train_NT: Tensor, val_NT: Tensor) -> float:
    return ridge_r2(bank.features_ND, train_NT[bank.ids_N], queries.features_ND, val_NT[queries.ids_N])

"""Online evaluation during training: k-NN, linear probe, RankMe, LiDAR, alpha-ReQ, and known factors of the photos.

Every process extracts the features of its share of the photos, classifies its share of them, and adds its share to the
sums of the probes. Features stay on the device.

Shape suffixes: V views, N samples, n those of this process, D features, T targets.
"""

import dataclasses
import logging
import math
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastaugself_kernels import ViewPolicy

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..distributed import World, gather_rows, sum_over_processes
from ..probes.alpha_req import alpha_req
from ..probes.extract import BATCH, Share, evaluating, extract
from ..probes.knn import knn_predict
from ..probes.lidar import lidar_of_scatter, scatter
from ..probes.rankme import rankme
from ..probes.ridge import ridge_accuracy, ridge_r2
from .check_data import CheckData, Part, open_checks
from .logs import RunLog

log = logging.getLogger(__name__)

COLLAPSED_RANK = 2.0  # an effective rank below it means at most one useful direction
FEW_PHOTOS = 32  # the rank of the features of fewer photos is low whatever they are
RANKED = 2048  # photos for RankMe and alpha-ReQ
LIDAR_PHOTOS, LIDAR_VIEWS = 1000, 10  # as published; fewer photos where their views were more than half of the images


class Extracted(NamedTuple):
    """The features of one part of a check: this process's share."""

    share: Share
    part: Part

    @property
    def x_nD(self) -> Tensor:
        """Features of the central crops."""
        return self.share.features_nVD[:, 0]

    @property
    def labels_n(self) -> Tensor:
        """Class numbers, -1 without a label."""
        return self.part.labels_N[self.share.ids_n]


class OnlineEvaluation:
    """Evaluates the backbone on `--data.val` and `--log.check`, on all ranks together.

    The classes of training and validation photos are matched by name. Raises UsageError for photos whose classes cannot
    be matched.
    """

    def __init__(self, config: Pretrain, learner: Learner, world: World) -> None:
        self.config, self.world = config, world
        self.backbone = learner.method.backbone
        self.checks = open_checks(config, world)

    @property
    def fingerprint(self) -> list[tuple[int, ...]]:
        """Of the photos of all checks."""
        return [data.fingerprint for data in self.checks]

    def close(self) -> None:
        """Closes the data files."""
        for data in self.checks:
            data.close()

    def due(self, step: int, steps_per_epoch: int, end: int) -> bool:
        """Whether to evaluate after this step. end: the last step."""
        every = self.config.log.knn_epochs
        if step == end:
            return True
        return every > 0 and int(step / (every * steps_per_epoch)) > int((step - 1) / (every * steps_per_epoch))

    def run(self, step: int, epoch: float, run_log: RunLog) -> dict[str, Any] | None:
        """Extracts features and evaluates them; a collective call.

        Rank 0 writes a line to evaluations.jsonl and returns it; the others return None. step, epoch: for the record.
        """
        began = time.perf_counter()
        record: dict[str, Any] = {"step": step, "epoch": epoch}
        with evaluating(self.backbone):
            for data in self.checks:
                record |= {data.prefix + name: value for name, value in self.scores(data).items()}
        if not self.world.is_main:
            return None
        record["seconds"] = time.perf_counter() - began
        parts = [f"{name} {value:.3f}" for name, value in record.items() if name not in ("step", "epoch", "seconds")]
        run_log.evaluation(record, f"evaluation at step {step}: " + "  ".join(parts))
        for data in self.checks:
            self._warn_of_collapse(data, record[data.prefix + "rankme"])
        return record

    def scores(self, data: CheckData) -> dict[str, float]:
        """The scores of one check by name, the same on every rank; a collective call."""
        queries, bank = self._extract(data.queries), self._extract(data.bank)
        found = self._label_free(data, queries, bank)
        if data.labelled:
            found |= labelled_scores(bank, queries)
        for name, targets in factor_targets(data).items():
            own = (targets[0][bank.share.ids_n], targets[1][queries.share.ids_n])
            found["r2_" + name] = ridge_r2(bank.x_nD, own[0], queries.x_nD, own[1], total=sum_over_processes)
        return found

    def _extract(self, part: Part) -> Extracted:
        """Features of the central square of each photo, without augmentation."""
        policy = ViewPolicy.none(self.config.view.size)
        options = {"mean": self.config.augment.mean, "std": self.config.augment.std, "blur_kernel": 1}
        return Extracted(self._share(part, (policy,), backend=self.config.augment.backend, **options), part)

    def _share(self, part: Part, policies: tuple[ViewPolicy, ...], **options: Any) -> Share:
        return extract(
            self.backbone,
            part.loader,
            part.ids_N,
            world=self.world,
            policies=policies,
            seed=self.config.seed,
            channels_last=self.config.channels_last,
            **options,
        )

    def _label_free(self, data: CheckData, queries: Extracted, bank: Extracted) -> dict[str, float]:
        """RankMe, alpha-ReQ and LiDAR; ranks 0 and 1 compute one each, where there are several."""
        x_ND = queries.share.first(RANKED)[:, 0]
        if data.whole and len(data.bank.ids_N):
            x_ND = torch.cat([x_ND, bank.share.first(RANKED - len(x_ND))[:, 0]])
        images = len(data.queries.ids_N) + len(data.bank.ids_N)
        photos = min(LIDAR_PHOTOS, len(data.queries.ids_N), images // (2 * LIDAR_VIEWS))
        found = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        enough = photos >= FEW_PHOTOS
        if enough:
            means_ND, within_DD = self._scatter(data.queries, photos)
            if self.world.rank == 1 % self.world.size:
                found[2] = lidar_of_scatter(means_ND, within_DD, views=LIDAR_VIEWS)
        if self.world.is_main:
            found[0], found[1] = rankme(x_ND), alpha_req(x_ND)
        values = dict(zip(("rankme", "alpha", "lidar"), sum_over_processes(found).tolist(), strict=True))
        if math.isnan(values["alpha"]):
            del values["alpha"]
        if not enough:
            del values["lidar"]
        return values

    def _scatter(self, part: Part, photos: int) -> tuple[Tensor, Tensor]:
        """What LiDAR needs, of addressed training views of the first photos."""
        options = {f.name: getattr(self.config.augment, f.name) for f in dataclasses.fields(self.config.augment)}
        options["blur_kernel"] = self.config.augment.blur_kernel_at(self.config.view.size)
        first = part._replace(ids_N=part.ids_N[:photos])
        share = self._share(first, (self.config.view,) * LIDAR_VIEWS, **options)
        means_nD, within_DD = scatter(share.features_nVD)
        return gather_rows(means_nD, share.counts), sum_over_processes(within_DD)

    def _warn_of_collapse(self, data: CheckData, rank: float) -> None:
        if rank < COLLAPSED_RANK and len(data.queries.ids_N) >= FEW_PHOTOS:
            log.warning(
                "the features of %s have collapsed or nearly so (effective rank %.1f): try a lower "
                "--optim.lr or a longer --optim.warmup-epochs",
                data.queries.loader.name,
                rank,
            )


def labelled_scores(bank: Extracted, queries: Extracted) -> dict[str, float]:
    """k-NN accuracy and that of the linear probe, without photos that have no label; a collective call.

    The bank is gathered on every rank, which classifies its own queries.
    """
    features_NVD, ids_N = bank.share.gathered()
    labels_N = bank.part.labels_N[ids_N]
    voters_N, own_n, asked_n = labels_N >= 0, bank.labels_n >= 0, queries.labels_n >= 0
    x_nD, truth_n = queries.x_nD[asked_n], queries.labels_n[asked_n]
    voting = (features_NVD[:, 0][voters_N], labels_N[voters_N])
    # In pieces of a forward pass: of the same shape, and thus rounded alike, on any number of ranks.
    predicted_n = knn_predict(*voting, queries.x_nD, chunk=BATCH)[asked_n] if len(queries.x_nD) else truth_n
    counts = torch.stack([(predicted_n == truth_n).sum(), torch.full_like(asked_n.sum(), len(truth_n))])
    right, count = sum_over_processes(counts).tolist()
    values_C = voting[1].unique()
    ridge = ridge_accuracy(
        bank.x_nD[own_n], bank.labels_n[own_n], x_nD, truth_n, values_C=values_C, total=sum_over_processes
    )
    return {"knn": right / count, "linear": ridge}


def factor_targets(data: CheckData) -> dict[str, tuple[Tensor, Tensor]]:
    """Known factors of both parts as regression targets [N, T] by sample id; a hue (in turns) as cosine and sine.

    A factor equal to the label is left out, because k-NN and the linear probe cover it.
    """
    targets = {}
    if not len(data.bank.ids_N):
        return {}
    loaders = (data.bank.loader, data.queries.loader)
    train, val = (loader.columns for loader in loaders)
    labels = loaders[0].labels_N.tolist()
    device = data.bank.labels_N.device
    for name in sorted(train.keys() & val.keys()):
        if train[name] == labels:
            continue
        columns = [torch.as_tensor(side[name], dtype=torch.float64, device=device) for side in (train, val)]
        if name == "hue":
            columns = [torch.stack([torch.cos(c * 2 * torch.pi), torch.sin(c * 2 * torch.pi)], 1) for c in columns]
        targets[name] = tuple(c if c.ndim == 2 else c[:, None] for c in columns)
    return targets  # type: ignore[return-value]

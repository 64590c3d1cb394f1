"""The training loop: batches to views to a loss to a step, with everything needed to stop and go on.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

import json
import logging
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch

from ..config import Pretrain, to_dict
from ..data.canvas import Canvas
from ..data.loader import Loader
from ..errors import RunError, UsageError
from ..files import replace_file
from ..methods.build import build_learner
from ..methods.learner import Step
from ..models.norm import set_group, use_native_sync
from ..models.resnet import ResNet
from . import checkpoint
from .apex import apex_sync_batch_norm
from .batch import Batch, make_batch, null_losses
from .distributed import World, mean_over_processes
from .environment import environment
from .logs import Rate, RunLog, duration
from .online import OnlineCheck
from .optim import learning_rate, load_state, make_optimizer, set_learning_rate
from .overlap import CudaStream, beside
from .profile import Profiler, memory
from .signals import Agreement, Stopped, StopRequest
from .step import TrainStep, compiles, keep_compiled_code, seed_step
from .together import check_same_start, check_same_step
from .tracker import make_tracker
from .watch import CollapseAlarm, LossWatch, all_finite

log = logging.getLogger(__name__)

SPOILED = 255  # what processes tell each other in place of a signal's number: the weights are not finite


class Trainer:
    """One run of a configuration on this process.

    Building it validates everything before work begins: the model, the data, the checkpoint to resume.
    """

    def __init__(self, config: Pretrain, world: World, *, identity: dict[str, Any] | None = None) -> None:
        """identity: the configuration that checkpoints carry and are compared with; `config` itself by default."""
        self.config, self.world = config, world
        self.identity = to_dict(config) if identity is None else identity
        self.device = world.device
        if config.batch_size % world.size:
            raise UsageError(
                f"--batch-size {config.batch_size} must be a multiple of the number of processes {world.size}; "
                f"pass --batch-size {-(-config.batch_size // world.size) * world.size}"
            )
        self.dtype = self._dtype()
        self.loader = self._open_data()
        check_same_start(self.identity, self.loader.fingerprint, self.loader.name)
        # A run that goes on has its weights, and need not find the file that it began with.
        init = None if checkpoint.checkpoints(config.run / "checkpoints") else config.init
        self.learner = build_learner(config, classes=len(self.loader.classes), init=init)
        self.steps_per_epoch = self.loader.batches
        self.total = config.epochs * self.steps_per_epoch
        self.end = min(self.total, config.max_steps or self.total)
        self.learner.to(self.device)
        if config.channels_last:
            self.learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.backbone.sync and self.device.type == "cuda" and world.size > 1:
            if config.backbone.sync_by == "apex":
                use_native_sync(self.learner, apex_sync_batch_norm())
            elif not compiles(config.compile, self.device):  # it waits for the device in every layer, and breaks graphs
                use_native_sync(self.learner)
        self.optimizer = make_optimizer(self.learner, config.optim, constant_lr=self.learner.method.constant_lr)
        self._check_accumulation()
        self._group_statistics()
        keep_compiled_code(config.run / "compiled")
        self.train = TrainStep(
            self.learner,
            self.optimizer,
            device=self.device,
            dtype=self.dtype,
            processes=world.size,
            compile=config.compile,
            accumulate=config.accumulate,
            cuda_graphs=config.cuda_graphs,
        )
        self.step, self.spoiled = 0, False
        self._resume()
        check_same_step(self.step, config.run)
        self.watch, self.alarm = LossWatch(world), CollapseAlarm()
        self._predict_nothing: dict[str, float] = {}

    def _dtype(self) -> torch.dtype:
        precision = self.config.precision
        if precision == "auto":
            precision = "bf16" if self.device.type == "cuda" else "fp32"
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def _open_data(self) -> Loader:
        config = self.config
        if config.data.train is None:
            raise UsageError("no training photos: pass --data.train with .beton files or a folder of photos")
        return Loader(
            config.data.train,
            batch_size=config.batch_size // self.world.size,
            seed=config.seed,
            rank=self.world.rank,
            world=self.world.size,
            source=config.data.source,
            decode=config.data.decode,
            workers=config.data.workers,
            order=config.data.order,
            max_corrupt=config.data.max_corrupt,
            device=self.device,
        )

    @property
    def compiled(self) -> bool:
        """Whether steps run compiled code."""
        return self.train.compiled

    def _check_accumulation(self) -> None:
        """Refuses to accumulate gradients where the sum over parts is not the gradient of the whole."""
        config, parts = self.config, self.config.accumulate
        if parts == 1:
            return
        if not self.learner.method.separable:
            raise UsageError(
                f"--accumulate {parts}: the loss of this method compares all samples of a batch, so parts of it give "
                "another gradient; pass --accumulate 1, and more processes or a smaller --batch-size"
            )
        if config.augself.solarize > 0 and config.augself.mode == "published":
            raise UsageError(
                f"--accumulate {parts}: the published solarize loss compares all samples of a batch; pass "
                "--augself.mode fixed, or --accumulate 1"
            )
        share = self.world.size * parts
        if config.batch_size % share or config.batch_size < 2 * share:
            raise UsageError(
                f"--batch-size {config.batch_size} must be a multiple of {share} (processes x --accumulate {parts}), "
                f"and at least twice that; pass --batch-size {max(2, -(-config.batch_size // share)) * share}"
            )

    def _group_statistics(self) -> None:
        """Says which samples batch norm takes together, and whether both views go through the encoder at once."""
        config = self.config
        part = config.batch_size // self.world.size // config.accumulate
        split = config.backbone.split if config.backbone.batch_norm == "split" else 0
        backbones = [module for module in self.learner.modules() if isinstance(module, ResNet)]
        if split and not backbones:
            raise UsageError(f"--backbone.batch-norm split needs a ResNet of this project, got {config.backbone.name}")
        if split and (split < 2 or part % split):
            raise UsageError(
                f"--backbone.split {split} must be at least 2 and divide the {part} samples of a forward pass"
            )
        wanted = config.joint_views
        joint = wanted == "on" or (wanted == "auto" and compiles(config.compile, self.device))
        for backbone in backbones:
            backbone.joint = joint
            set_group(backbone, split or (part if joint else 0))

    def _resume(self) -> None:
        folder = self.config.run / "checkpoints"
        found, notes = checkpoint.latest(folder, self.identity, device=self.device)
        for note in notes:
            log.warning("%s", note)
        if found is None:
            return
        state = found["state"]
        if state["samples"] != self.loader.num_samples:
            raise UsageError(
                f"the run in {self.config.run} was trained on {state['samples']} photos, {self.loader.name} has "
                f"{self.loader.num_samples}; pass the same photos, or another --run"
            )
        if state["fingerprint"] != self.loader.fingerprint:
            raise UsageError(
                f"the run in {self.config.run} was trained on other photos than {self.loader.name}, or on the same in "
                f"another order; pass the same files in the same order, or another --run"
            )
        self.learner.load_state_dict(state["learner"])
        load_state(self.optimizer, state["optimizer"])
        self.train.scaler.load_state_dict(state["scaler"])
        self.step = found["step"]

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds besides the step and the configuration."""
        return {
            "samples": self.loader.num_samples,
            "fingerprint": self.loader.fingerprint,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.train.scaler.state_dict(),
        }

    def save(self, *, last: bool = False) -> None:
        """Writes a checkpoint, from the leading process.

        Where the disk does not take it, older ones stay and a warning says so; `last` raises RunError then. Weights
        that are not finite are not written: they set `spoiled`, and `last` raises RunError, on all processes.
        """
        if not self.world.leads and not last:
            return
        folder, options = self.config.run / "checkpoints", self.config.checkpoint
        self.spoiled = not all_finite(list(self.learner.parameters()))
        if self.spoiled and last:
            raise RunError(self._not_finite(f"the weights are not finite at step {self.step}"))
        if self.spoiled or not self.world.leads:
            return
        milestone = round(options.milestone * self.steps_per_epoch)
        try:
            checkpoint.save(folder, self.step, self.state(), self.identity, keep=options.keep, milestone=milestone)
        except OSError as error:
            kept = checkpoint.checkpoints(folder)
            newest = f"the newest is {kept[-1].name}" if kept else "there is none yet"
            complaint = f"no checkpoint of step {self.step} was written to {folder} ({error}); {newest}"
            if last:
                raise RunError(f"{complaint}; make room, and the same command goes on from there") from None
            log.warning("%s; training goes on, the next try is in %g minutes", complaint, options.minutes)

    def _not_finite(self, what: str) -> str:
        kept = checkpoint.checkpoints(self.config.run / "checkpoints")
        newest = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return f"{what}; {newest}; try a lower --optim.lr, a longer --optim.warmup-epochs or --precision bf16"

    def check_losses(self) -> None:
        """Raises RunError, on all processes, where a loss so far was not finite; its samples are dumped for replay."""
        found = self.watch.found()
        if found is None:
            return
        path = self.config.run / "not-finite.json"
        context = {"epoch": (found.step - 1) // self.steps_per_epoch, "seed": self.config.seed}
        self.watch.dump(path, found, **context, photos=str(self.config.data.train))
        what = f"the loss is not finite at step {found.step} on rank {found.rank}"
        raise RunError(f"{self._not_finite(what)}; `fastaugself replay {path}` looks for the cause in its samples")

    def predict_nothing(self) -> dict[str, float]:
        """The auxiliary losses of heads that predict zero, on these photos: where a head stays that learns nothing."""
        if not self._predict_nothing:
            self._predict_nothing = null_losses(self.config, self.loader.sizes_N2, self.learner.augself)
        return self._predict_nothing

    def train_step(self, batch: Batch) -> Step:
        """One step on one batch: forward, backward, optimizer, momentum encoder and queue."""
        set_learning_rate(self.optimizer, self.learning_rate(), self.peak)
        seed_step(self.config.seed, self.step, self.world.rank)
        step = self.train(batch.views, batch.targets, step=self.step, progress=(self.step + 1) / self.total)
        self.step += 1
        self.watch.see(step.loss, self.step, batch.ids_B)
        return step

    def learning_rate(self) -> float:
        """The learning rate of the coming step."""
        return learning_rate(
            self.config.optim,
            self.step,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.config.epochs,
            batch_size=self.config.batch_size,
        )

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up, scaled to the batch."""
        return self.config.optim.lr * self.config.batch_size / 256

    def batches(self) -> Generator[Batch]:
        """The batches from the current step to the last, views and targets made; on CUDA beside the step before."""
        stream = CudaStream(self.device) if self.device.type == "cuda" else None
        with closing(beside(self._canvases(), self._make, stream)) as batches:
            yield from batches

    def _make(self, item: tuple[int, Canvas]) -> Batch:
        epoch, canvas = item
        return Batch(epoch, *make_batch(self.config, canvas, epoch, self.dtype), canvas.ids_B.clone())

    def _canvases(self) -> Generator[tuple[int, Canvas]]:
        """(epoch, photos) of every step from the current one to the last."""
        step = self.step
        while step < self.end:
            epoch, start = divmod(step, self.steps_per_epoch)
            with closing(self.loader.epoch(epoch, start)) as canvases:
                for canvas in canvases:
                    yield epoch, canvas
                    step += 1
                    if step >= self.end:
                        return

    def fit(self) -> None:
        """Trains to the end, logging, checking and saving on the way.

        Ctrl-C, SIGTERM and SIGUSR1, on any process, end it on all after the same step, with a checkpoint, as Stopped.
        """
        config = self.config
        if self.world.leads:
            self._write_environment()
        run_log = RunLog(
            config.run,
            leads=self.world.leads,
            tensorboard=config.log.tensorboard,
            step=self.step,
            total=self.end,
            tracker=make_tracker(config, self.identity) if self.world.leads else None,
        )
        check = OnlineCheck(config, self.learner, self.loader, self.device) if self.world.leads else None
        agreement = Agreement(self.world.size)
        self.profiler = Profiler(config.run / "profile", config.log.profile if self.world.leads else 0)
        try:
            with StopRequest() as stop:
                stopped_by = self._loop(run_log, check, stop, agreement)
        finally:
            self.profiler.close()
            run_log.close()
            if check is not None:
                check.close()
        agreement.close()
        self.check_losses()
        self.save(last=True)
        if stopped_by not in (None, SPOILED) and self.step < self.end:
            log.warning("stopped at step %d; the same command goes on from there", self.step)
            raise Stopped(stopped_by)

    def _loop(self, run_log: RunLog, check: OnlineCheck | None, stop: StopRequest, agreement: Agreement) -> int | None:
        """Steps to the end, or until a signal, whose number it gives, or weights that are not finite."""
        config = self.config
        milestone = round(config.checkpoint.milestone * self.steps_per_epoch)
        rate, sums, counted = Rate(config.batch_size), None, 0
        began, first, saved = time.perf_counter(), self.step, time.perf_counter()
        asked = time.perf_counter()
        if check is not None and self.step == 0:
            check.run(0, 0.0, run_log)
        for batch in self.batches():
            waited = time.perf_counter() - asked
            lr = self.learning_rate()
            step = self.train_step(batch)
            self.profiler.step()
            metrics = {**step.metrics, "feature_std": step.spread}
            values = torch.stack([value.float() for value in metrics.values()])
            sums = values if sums is None else sums + values
            counted += 1
            rate.count(waited)
            run_log.step(self.step)
            if self.step % config.log.every == 0 or self.step == self.end:
                names, corrupt = [*metrics, "corrupt"], sums.new_tensor([self.loader.corrupt])
                row = mean_over_processes(torch.cat([sums / counted, corrupt])).tolist()
                means = dict(zip(names, row, strict=True))
                met = round(means.pop("corrupt") * self.world.size)
                self.loader.check_corrupt(met)
                sums, counted = None, 0
                self.check_losses()
                pairs, share = rate.read()
                left = (time.perf_counter() - began) / (self.step - first) * (self.end - self.step)
                record = {
                    "step": self.step,
                    "epoch": self.step / self.steps_per_epoch,
                    **means,
                    "lr": lr,
                    "pairs_per_s": pairs,
                    "data_wait": share,
                    **({"corrupt": met} if met else {}),
                }
                self.alarm.see(means["feature_std"], self.step)
                parts = "  ".join(f"{name.removeprefix('loss_')} {value:.4f}" for name, value in means.items())
                status = (
                    f"{parts}  lr {lr:.3g}  {pairs:.0f} pairs/s  wait {share:.0%}  {memory(self.device)}  "
                    f"{duration(left)} left"
                )
                run_log.step(self.step, status)
                run_log.metrics(record, f"step {self.step}/{self.end}  {status}")
            stopped_by = agreement.reached(SPOILED if self.spoiled else stop.requested)
            if stopped_by is not None:
                return stopped_by
            aside = time.perf_counter()
            if aside - saved > config.checkpoint.minutes * 60 or (milestone and self.step % milestone == 0):
                self.save()
                saved = time.perf_counter()
            if check is not None and check.due(self.step, self.steps_per_epoch, self.end):
                check.run(self.step, self.step / self.steps_per_epoch, run_log)
            rate.pause(time.perf_counter() - aside)
            asked = time.perf_counter()
        return None

    def _write_environment(self) -> None:
        record = environment(self.device)
        record["processes"] = self.world.size
        record["predict_nothing"] = self.predict_nothing()
        path = self.config.run / "environment.json"
        replace_file(path, (json.dumps(record, indent=2) + "\n").encode())

    def close(self) -> None:
        """Ends the loader's threads."""
        self.loader.close()

"""The training loop: batch, forward, backward, optimizer step, EMA update, queue update, metrics; resumable.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from ..aware.learner import StepOutput
from ..config.checks import check_processes
from ..config.schema import Pretrain
from ..config.serialize import to_dict
from ..data.background import Background
from ..distributed import World, on_main
from ..errors import RunError
from .batch import Batch, BatchMaker, Decoded, baseline_losses, decoded_photos, initialize
from .callbacks import Callback, Callbacks
from .compile import keep_compiled_code
from .logs import RunLog
from .metrics import Metrics, device_memory, memory
from .online import OnlineEvaluation
from .optim import load_state, make_optimizer, set_learning_rate, set_weight_decay, weight_decay
from .prefetch import CudaStream, prefetch
from .profile import Profiler
from .run_ahead import RunAhead
from .saving import Saver
from .schedule import Schedule, Segment
from .setup import activation_dtype, half_precision_warning, learner_on_device, open_loader
from .signals import StopConsensus, Stopped, StopRequest
from .startup import check_same_photos, check_same_start, check_same_step, write_environment
from .step import TrainStep, seed_step
from .tracker import make_tracker
from .watch import CollapseAlarm, LossWatch

log = logging.getLogger(__name__)

NONFINITE = 255  # stands for "weights are NaN or Inf" in place of a signal number


class Trainer:
    """The training run of a configuration, on one process.

    The constructor validates model, data and the checkpoint to resume before training starts.
    """

    def __init__(
        self,
        config: Pretrain,
        world: World,
        *,
        identity: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """identity: the configuration stored in and compared with checkpoints; `config` by default."""
        check_processes(config, world.size)
        self.config, self.world, self.device = config, world, world.device
        self.callbacks = Callbacks(callbacks)
        self._added_metrics: dict[str, float] = {}
        self.identity = to_dict(config) if identity is None else identity
        self.dtype = activation_dtype(config.precision, self.device)
        if world.is_main and (slow := half_precision_warning(self.dtype, self.device)):
            log.warning("%s", slow)
        self.loader = open_loader(config, world)
        check_same_start(self.identity, self.loader.fingerprint, self.loader.name)
        self.steps_per_epoch = self.loader.batches
        self.total_steps = config.epochs * self.steps_per_epoch
        self.last_step = min(self.total_steps, config.max_steps or self.total_steps)
        self.saver = Saver(config, world, self.identity, steps_per_epoch=self.steps_per_epoch)
        self.learner = learner_on_device(
            config, world, num_classes=len(self.loader.classes), resumed=self.saver.exist()
        )
        self.optimizer = make_optimizer(self.learner, config.optim, constant_lr=self.learner.method.constant_lr)
        keep_compiled_code(config.run / "compiled")
        self.step_fn = TrainStep(
            self.learner,
            self.optimizer,
            device=self.device,
            dtype=self.dtype,
            processes=world.size,
            compile=config.compile,
            accumulate=config.accumulate,
            cuda_graphs=config.cuda_graphs,
            clip_grad=config.optim.clip_grad,
            clip_by=config.optim.clip_by,
        )
        self.global_step, self._corrupt = 0, 0
        self._run_ahead = RunAhead(self.device)
        segments = self._resume()
        self.schedule = Schedule(
            config.optim, batch_size=config.batch_size, steps_per_epoch=self.steps_per_epoch, segments=segments
        )
        self.sizes, self._first_steps = config.sizes, segments[0].end * self.steps_per_epoch
        check_same_step(self.global_step, config.run)
        self.loss_watch, self.collapse_alarm = LossWatch(world), CollapseAlarm()
        self._baseline_losses: dict[str, float] = {}
        self.evaluation: OnlineEvaluation | None = None

    def open_evaluation(self) -> None:
        """Opens the photos of the checks, if there are any; raises UsageError and RunError on all ranks."""
        config = self.config
        if (config.data.val is not None or config.log.check) and self.evaluation is None:
            evaluation = partial(OnlineEvaluation, config, self.learner, self.world)
            self.evaluation = on_main(evaluation, what="opening the validation photos") or evaluation()
            check_same_photos(self.evaluation.fingerprint, "--data.val and --log.check")

    def fit(self) -> None:
        """Trains to the last step, with logs, online evaluations and checkpoints.

        SIGINT, SIGTERM, SIGUSR1 or SIGHUP on any rank stops all ranks after the same step, with a checkpoint. Raises
        Stopped then, and RunError if a loss or the weights are NaN or Inf.
        """
        config, is_main = self.config, self.world.is_main
        self.open_evaluation()
        if is_main:
            write_environment(config.run, self.device, self.world.size, self.baseline_losses())
        run_log = RunLog(
            config.run,
            is_main=is_main,
            tensorboard=config.log.tensorboard,
            global_step=self.global_step,
            total=self.last_step,
            tracker=make_tracker(config, self.identity) if is_main else None,
        )
        consensus = StopConsensus(self.world.size) if self.world.size > 1 else None
        self._probe_compiler()
        profiled = is_main and config.log.profile > 0
        self.profiler = Profiler(config.run / "profile", config.log.profile) if profiled else None
        with StopRequest() as stop:
            try:
                self.callbacks.on_start(self)
                stopped_by = self.train(run_log, self.evaluation, stop, consensus)
            finally:
                run_log.close()
                for used in (self.profiler, self.evaluation):
                    if used is not None:
                        used.close()
            if consensus is not None:
                consensus.close()
            self.check_losses()
            self.save(last=True)
        self.callbacks.on_end(self)
        if stopped_by not in (None, NONFINITE) and self.global_step < self.last_step:
            log.warning("stopped at step %d; run the same command again to resume", self.global_step)
            raise Stopped(stopped_by)

    def train(
        self, run_log: RunLog, evaluation: OnlineEvaluation | None, stop: StopRequest, consensus: StopConsensus | None
    ) -> int | None:
        """The training loop. Returns the number of the signal that stopped it, NONFINITE, or None at the last step."""
        metrics = Metrics(self.config.batch_size, first_step=self.global_step, last_step=self.last_step)
        if evaluation is not None and self.global_step == 0:
            self._check(evaluation, run_log)
        for batch in self.batches():
            metrics.data_ready()
            lr = self.learning_rate()
            self._tell_size()
            output = self.train_step(batch)
            metrics.update(output)
            if self.profiler is not None:
                self.profiler.step_done()
            self.callbacks.on_step(self, output)
            run_log.progress(self.global_step)
            if self.global_step % self.config.log.every == 0 or self.global_step == self.last_step:
                self._log_metrics(metrics, run_log, lr)
            stopped_by = NONFINITE if self.saver.weights_nonfinite else stop.requested
            if consensus is not None:
                stopped_by = consensus.reached(stopped_by)
            if stopped_by is not None:
                return stopped_by
            began = time.perf_counter()
            if self.saver.due(self.global_step):
                self.save()
            if evaluation is not None and evaluation.due(self.global_step, self.steps_per_epoch, self.last_step):
                self._check(evaluation, run_log)
            metrics.step_done(excluded=time.perf_counter() - began)
        return None

    def train_step(self, batch: Batch) -> StepOutput:
        """One optimizer step on a batch: forward, backward, optimizer, EMA and queue (TrainStep)."""
        set_learning_rate(self.optimizer, self.learning_rate(), self.peak_lr)
        if self.config.optim.weight_decay_end is not None:
            set_weight_decay(self.optimizer, weight_decay(self.config.optim, self.global_step / self.total_steps))
        seed_step(self.config.seed, self.global_step, self.world.rank)
        progress = (self.global_step + 1) / self.total_steps
        output = self.step_fn(batch.views, global_step=self.global_step, progress=progress)
        self.global_step += 1
        self.loss_watch.update(output.loss, self.global_step, batch.ids_B)
        self._run_ahead.step_done()
        return output

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule(self.global_step)

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up, scaled to the batch size."""
        return self.config.optim.lr * self.config.batch_size / 256

    def view_size(self, step: int) -> int:
        """The size of the global views of a step, counted from 0, in pixels (`--view.schedule`).

        A run that is extended keeps the stages that it had, and then the full size.
        """
        return self.sizes.at(step, self._first_steps)

    def batches(self, size: int | None = None) -> Generator[Batch]:
        """The batches from the current step to the last one; on CUDA, augmented during the previous step.

        size: of the global views; by default that of each step.
        """
        maker = BatchMaker(self.config, self.dtype)
        photos = decoded_photos(self.loader, self.global_step, self.last_step)

        def make(item: Decoded) -> Batch:
            self._corrupt = item.corrupt
            return maker(item.photos, item.epoch, self.view_size(item.step) if size is None else size)

        if self.device.type == "cuda":
            with closing(prefetch(photos, make, CudaStream(self.device))) as batches:
                yield from batches
        else:  # a thread reads ahead, also across the end of an epoch
            with closing(Background(photos, depth=1, name="decode-ahead", about="photos")) as decoded:
                yield from map(make, decoded)

    def add_metrics(self, values: dict[str, float]) -> None:
        """Adds values by name to the next line of metrics.jsonl, TensorBoard and the tracker, for callbacks."""
        self._added_metrics.update(values)

    def _check(self, evaluation: OnlineEvaluation, run_log: RunLog) -> None:
        record = evaluation.run(self.global_step, self.global_step / self.steps_per_epoch, run_log)
        if record is not None:
            self.callbacks.on_check(self, record)

    def _log_metrics(self, metrics: Metrics, run_log: RunLog, lr: float) -> None:
        means = metrics.read(self.global_step, self._corrupt)
        if means.corrupt:
            self.loader.check_corrupt(means.corrupt)
        self.check_losses()
        self.collapse_alarm.update(means.losses["feature_std"], self.global_step)
        epoch = self.global_step / self.steps_per_epoch
        status = means.status(lr, memory(self.device))
        run_log.progress(self.global_step, status)
        line = f"step {self.global_step}/{self.last_step}  {status}"
        record = means.record(self.global_step, epoch, lr) | device_memory(self.device)
        run_log.metrics(record | self._added_metrics, line)
        self._added_metrics.clear()

    def check_losses(self) -> None:
        """Raises RunError on all ranks if a loss was NaN or Inf; saves the sample ids for `fastaugself replay`."""
        found = self.loss_watch.found()
        if found is None:
            return
        path = self.config.run / "not-finite.json"
        context = {"epoch": (found.step - 1) // self.steps_per_epoch, "seed": self.config.seed}
        self.loss_watch.dump(path, found, **context, photos=str(self.config.data.train))
        what = f"the loss is NaN or Inf at step {found.step} on rank {found.rank}"
        raise RunError(f"{self.saver.with_remedy(what)}; run `fastaugself replay {path}` to find the cause")

    def baseline_losses(self) -> dict[str, float]:
        """Baseline losses of the objectives on this data set, by name: those of constant predictions."""
        if not self._baseline_losses:
            self._baseline_losses = baseline_losses(self.config, self.loader.sizes_N2, self.learner)
        return self._baseline_losses

    def state(self) -> dict[str, Any]:
        """The training state for a checkpoint."""
        return {
            "samples": self.loader.num_samples,
            "fingerprint": self.loader.fingerprint,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.step_fn.scaler.state_dict(),
            "segments": [list(segment) for segment in self.schedule.segments],
        }

    def save(self, *, last: bool = False) -> None:
        """Writes a checkpoint on rank 0 (see `Saver.save`). last: this is the last checkpoint of the run."""
        path = self.saver.save(self.global_step, self.learner, self.state, last=last)
        if path is not None:
            self.callbacks.on_checkpoint(self, path)

    def close(self) -> None:
        """Stops the threads of the loaders."""
        self.loader.close()
        if self.evaluation is not None:
            self.evaluation.close()

    def _tell_size(self) -> None:
        """Logs the size of the views where it changes, and adds it to the next line of metrics."""
        if len(self.sizes.stages) == 1:
            return
        size = self.view_size(self.global_step)
        if self.world.is_main and (self.global_step == 0 or size != self.view_size(self.global_step - 1)):
            log.info("views of %d px from step %d on", size, self.global_step + 1)
        self.add_metrics({"view_size": float(size)})

    def _probe_compiler(self) -> None:
        """Compiles the step for every size of the views that is still to come, so that no stage fails later."""
        for size in self.sizes.between(self.global_step, self.last_step, self._first_steps):
            if self.step_fn.compiled:
                with closing(self.batches(size)) as batches:
                    self.step_fn.probe(next(batches).views)

    def _resume(self) -> tuple[Segment, ...]:
        """Loads the newest checkpoint, if there is one; returns the segments of the learning rate's schedule."""
        newest = self.saver.newest(self.loader, self.device)
        if newest is None:
            initialize(self.config, self.loader.sizes_N2, self.learner)
            return (Segment(self.config.epochs, "start"),)
        found, segments = newest
        self.learner.load_state_dict(found["state"]["learner"])
        load_state(self.optimizer, found["state"]["optimizer"])
        self.step_fn.scaler.load_state_dict(found["state"]["scaler"])
        self.global_step = found["step"]
        return segments

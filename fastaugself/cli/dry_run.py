"""`--dry-run`: print the schedule of a run and estimates of its time, memory and disk, without writing anything."""

from ..config.batch_size import few_steps
from ..config.checks import check_photos, check_processes
from ..config.schema import Photos, Pretrain
from ..data.classes import Classes, match_classes
from ..data.dataset import Dataset, is_pattern
from ..data.demo import DEMO_CLASSES, DEMO_COUNTS
from ..data.inputs import open_samples
from ..data.inputs.samples import some
from ..distributed import resolve_device
from ..errors import UsageError
from ..models.build import build_backbone
from ..models.weights import load_weights
from ..training.optim import learning_rate
from ..training.prepare import check_run_folder, split_folders
from ..training.setup import check_installation, check_labels
from .doctor import GIB, NEEDS, diagnose, training_bytes
from .estimate import count, estimate


def plan(config: Pretrain, *, processes: int = 1) -> tuple[str, int]:
    """The text of the plan (schedule, estimates of time, memory and disk) and its number of faults.

    Photos are counted but not read. The time is that of forward and backward, without data loading and compilation, see
    `estimate`. processes: of the run. Raises UsageError as training would.
    """
    check_processes(config, processes)
    check_installation(config, resolve_device(config.device))
    check_run_folder(config)
    if config.data.train is None:
        raise UsageError("no training photos; pass --data.train FILE.beton, or --data.train FOLDER")
    samples, classes, about = _photos(config, config.data.train)
    check_photos(config, processes, samples)
    if config.data.val is not None:
        val = _photos(config, config.data.val, val=True)[1]
        match_classes(classes, val, names=(str(config.data.train), str(config.data.val)))
    for photos in map(split_folders, config.log.check_photos):
        known = [_photos(config, path, val=True)[1] for path in (photos.train, photos.val) if path is not None]
        if photos.val is not None:
            option = f"--log.check {photos.name}"
            match_classes(
                known[0],
                known[1],
                names=(str(photos.train), str(photos.val)),
                options=(f"{option} TRAIN", f"{option} VAL"),
            )
    steps = samples // config.batch_size
    total = config.epochs * steps
    end = min(total, config.max_steps or total)
    device = resolve_device(config.device)
    if config.init is not None:  # raises if it does not fit
        load_weights(build_backbone(config.backbone, image_size=config.view.size)[0], config.init)
    batch_size = config.batch_size // processes // config.accumulate
    built = count(config, num_classes=len(classes.names), batch_size=batch_size)
    seconds, how = estimate(config, built, device, num_classes=len(classes.names), batch_size=batch_size)
    share, saved = _sizes(config, built.flops, num_classes=len(classes.names), batch_size=batch_size)
    seconds *= share
    hours = seconds * config.batch_size * end / processes / 3600
    peak_lr = learning_rate(
        config.optim, int(config.optim.warmup_epochs * steps), steps_per_epoch=steps, epochs=config.epochs,
        batch_size=config.batch_size,
    )  # fmt: skip
    state = training_bytes(config)
    lines = [
        f"photos    {samples:,}, {about}",
        f"model     {config.backbone.name}, {built.backbone / 1e6:.1f} M parameters; "
        f"{built.trainable / 1e6:.1f} M trainable",
        f"schedule  {end:,} of {total:,} steps: {config.epochs} epochs of {steps:,}, batch {config.batch_size}, "
        f"learning rate {peak_lr:g} after warm-up",
        *saved,
        f"time      about {_duration(hours)} on {processes} x {device.type}, forward and backward only",
        f"          {how}",
        f"memory    {state / GIB:.2f} GiB of weights, queue and optimizer state per device, without activations",
        f"disk      {(config.checkpoint.keep + 1) * state / GIB:.2f} GiB of checkpoints in {config.run}",
    ]
    if hint := few_steps(config, processes, samples):
        lines.append(f"hint      {hint}")
    faults = [f for f in diagnose(config, NEEDS) if f.state == "fault"]
    lines += [f"fault     {f.found}; {f.remedy}" for f in faults]
    return "\n".join(lines), len(faults)


def _sizes(config: Pretrain, full: float, *, num_classes: int, batch_size: int) -> tuple[float, list[str]]:
    """What a schedule of sizes costs, as a share of the operations at full size, and lines about it.

    full: operations per photo at full size. Others as for `count`.
    """
    shares = config.sizes.shares()
    if len(shares) == 1:
        return 1.0, []
    work = pixels = 0.0
    for size, share in shares.items():
        built = count(config, num_classes=num_classes, batch_size=batch_size, size=size)
        work += share * built.flops / full
        pixels += share * size**2 / config.view.size**2
    saved = f"{1 - work:.0%} fewer operations and {1 - pixels:.0%} fewer bytes of views"
    return work, [f"sizes     {config.sizes}", f"          {saved} than at {config.view.size} px throughout"]


def _photos(config: Pretrain, photos: Photos, *, val: bool = False) -> tuple[int, Classes, str]:
    """Number of photos, their classes, and a description of where they are. val: they are not trained on."""
    if isinstance(photos, tuple) or is_pattern(photos) or photos.is_file():
        with Dataset(photos) as dataset:
            if not val:
                check_labels(config, dataset)
            return len(dataset), dataset.known_classes, f"of {len(dataset.shards)} file(s)"
    if str(photos) == "demo" and not photos.exists():
        return DEMO_COUNTS["train"], _all(DEMO_CLASSES), "of the demo, which would be written to the run folder"
    found = open_samples(photos)
    about = f"of {photos}, which would be converted to a .beton file next to it"
    if found.faults:
        about += f"; training would refuse {len(found.faults)} of them: {some(list(found.faults.values()), 1)}"
    if found.left_out:
        about += f"; {len(found.left_out)} not read, which may be photos: {some(found.left_out)}"
    return found.count, _all(found.classes), about


def _all(names: list[str]) -> Classes:
    return Classes(names, list(range(len(names))))


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"

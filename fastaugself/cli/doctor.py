"""`fastaugself doctor`: checks hardware, packages and back-ends of this machine, with a remedy for each fault.

It tries on a small scale what would otherwise fail during training: a batch is augmented and compared with the
reference, the reader and the compiler are looked up, and the run's memory and disk space are estimated.
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..config.schema import Pretrain
from ..data.cores import available_cores
from ..data.dataset import expand
from ..environment import cpu_name, launch_shapes
from ..errors import UsageError
from ..models.beside import import_torchvision, without_operators

PACKAGES = {
    "torch": "torch", "triton": "triton", "numba": "numba", "numpy": "numpy", "simplejpeg": "simplejpeg",
    "tyro": "tyro", "rich": "rich", "safetensors": "safetensors", "pillow": "PIL", "scikit-learn": "sklearn",
    "scikit-image": "skimage", "scipy": "scipy", "matplotlib": "matplotlib", "pyarrow": "pyarrow",
    "tensorboard": "torch.utils.tensorboard", "onnxruntime": "onnxruntime", "torchvision": "torchvision",
    "timm": "timm",
}  # fmt: skip
"""Packages that are used where they are installed, and the module that is imported of each."""
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """The result of a check. part: what was checked. found: the result. remedy: what to do, for notes and faults."""

    part: str
    state: Literal["ok", "note", "fault"]
    found: str
    remedy: str = ""


Check = Callable[[Pretrain], Iterator[Finding]]


def diagnose(config: Pretrain | None = None, checks: Sequence[Check] | None = None) -> list[Finding]:
    """Runs `checks` (default: all) for a run with this configuration (default: MoCo v2 with ResNet-50 at 224 px).

    A check that raises an exception is reported as a fault.
    """
    config = config or Pretrain()
    findings: list[Finding] = []
    for check in CHECKS if checks is None else checks:
        try:
            findings += check(config)
        except Exception as error:
            part = check.__name__.removeprefix("check_")
            findings.append(Finding(part, "fault", f"the check itself failed: {type(error).__name__}: {error}"))
    return findings


def report(findings: list[Finding]) -> str:
    """The findings as aligned lines of text, each remedy below its finding, and last the number of faults."""
    width = max(len(f.part) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.state:5s}  {f.part:{width}s}  {f.found}")
        if f.remedy:
            lines.append(" " * (width + 9) + "-> " + f.remedy)
    faults = sum(f.state == "fault" for f in findings)
    lines.append(f"{faults} faults" if faults != 1 else "1 fault")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> list[dict[str, str]]:
    """The findings as dictionaries for JSON."""
    return [dataclasses.asdict(f) for f in findings]


def check_system(_: Pretrain) -> Iterator[Finding]:
    """Operating system, Python, cores and memory."""
    python = f"Python {platform.python_version()} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", "ok", python)
    else:
        yield Finding("python", "fault", python, "use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12")
    yield Finding("system", "ok", f"{platform.platform()}, {cpu_name()}")


def check_packages(_: Pretrain) -> Iterator[Finding]:
    """Versions of the packages that are used, and whether each can be imported."""
    found = [f"fastaugself {importlib.metadata.version('fastaugself')}"]
    for name, module in PACKAGES.items():
        try:
            version = f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
            continue
        try:
            import_torchvision() if name in ("torchvision", "timm") else None
            importlib.import_module(module)
            found.append(version)
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            remedy = f"pip install --force-reinstall --no-deps {name}"
            yield Finding("packages", "fault", f"{version} cannot be imported ({reason})", remedy)
    yield Finding("packages", "ok", ", ".join(found))
    if without_operators():
        yield Finding(
            "packages", "note",
            f"torchvision is not built for torch {torch.__version__}: `import torchvision` and `import timm` fail in a "
            "program of your own; models of both work here, in `fastaugself eval` and in fastaugself.load_encoder",
            "for a program of your own, install torch and torchvision from the same index (CPU or CUDA)",
        )  # fmt: skip


def check_device(config: Pretrain) -> Iterator[Finding]:
    """CUDA devices, and whether `--device` can be met."""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            free, total = torch.cuda.mem_get_info(i)
            yield Finding(
                f"gpu {i}", "ok",
                f"{p.name}, sm_{p.major}{p.minor}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, driver {_driver()}, "
                f"CUDA {torch.version.cuda or torch.version.hip}, cuDNN {torch.backends.cudnn.version()}",
            )  # fmt: skip
            if (p.major, p.minor) < (8, 0):
                yield Finding(
                    f"gpu {i}", "note", "no bfloat16 units before sm_80", "train with --precision fp16 on this GPU"
                )
    elif driver := _driver():
        yield Finding(
            "gpu", "fault",
            f"the system has an NVIDIA driver ({driver}), but torch {torch.__version__} finds no GPU",
            "torch is a CPU build, or its CUDA is newer than the driver: install a torch build for CUDA "
            f"{torch.version.cuda or '12 or newer'}, or update the driver; check CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', '(not set)')}",
        )  # fmt: skip
    else:
        yield Finding("gpu", "ok", "none, and no NVIDIA driver: everything runs on the CPU")
    if config.device == "cuda" and not torch.cuda.is_available():
        yield Finding("gpu", "fault", "the configuration asks for --device cuda", "pass --device auto or cpu")


def _driver() -> str:
    """The version of the NVIDIA driver, or an empty string."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return result.stdout.split("\n")[0].strip() if result.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


def check_augmentation(config: Pretrain) -> Iterator[Finding]:
    """The fused augmentation kernels against the reference."""
    from fastaugself_kernels import ViewPolicy, augment, sample_params
    from fastaugself_kernels.backends import INSTALLED

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend = "triton" if device.type == "cuda" else "numba"
    if not INSTALLED[backend]:
        effect = "no augmentation on this GPU" if device.type == "cuda" else "plain PyTorch is used, 50 times slower"
        yield Finding("augmentation", "fault", f"{backend} is not installed: {effect}", f"pip install {backend}")
        return
    sizes, ids = torch.tensor([[90, 120]] * 4, device=device), torch.arange(4, device=device)
    params = sample_params(ids, sizes, (ViewPolicy.moco_v2(48),) * 2, seed=0, epoch=0)
    pixels = torch.randint(0, 256, (4, 90, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    options: dict[str, Any] = {"size": 48, "rounding": "none", "mean": (0, 0, 0), "std": (1, 1, 1)}
    got = augment(pixels.to(device), None, sizes, params, **options).cpu()
    expected = augment(pixels, None, sizes.cpu(), params.cpu(), backend="reference", **options)
    error = (got - expected).abs().max().item()
    if error > 1e-5:
        yield Finding(
            "augmentation", "fault", f"{backend} differs from the reference by {error:.1e}",
            "please report this with `fastaugself doctor --json`; --augment.backend reference is slow but correct",
        )  # fmt: skip
    else:
        yield Finding("augmentation", "ok", f"{backend} on the {device.type}, within {error:.0e} of the reference")
    if (shapes := launch_shapes(device)) and shapes.note:
        yield Finding("augmentation", "note", shapes.note, shapes.remedy)


def check_reader(config: Pretrain) -> Iterator[Finding]:
    """Which reader of .beton files is used, and why."""
    from ..data.readers.ffcv import why_not

    why = why_not()
    if config.data.source == "ffcv" and why:
        yield Finding("reader", "fault", f"--data.source ffcv: {why}", "pass --data.source auto or native")
    elif why:
        yield Finding("reader", "note", f"the native reader: {why}", "none needed: it gives the same pixels")
    else:
        yield Finding("reader", "ok", "FFCV")


def check_compiler(config: Pretrain) -> Iterator[Finding]:
    """Whether torch.compile finds what it needs."""
    wanted = config.compile == "on" or (config.compile == "auto" and torch.cuda.is_available())
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not wanted:
        yield Finding("torch.compile", "ok", "not used: --compile auto compiles on CUDA only")
    elif found:
        yield Finding("torch.compile", "ok", f"used, with the C++ compiler {found}")
    else:
        yield Finding(
            "torch.compile", "fault", "no C++ compiler found; training would continue in eager mode, which is slower",
            "apt-get install g++, or pass --compile off",
        )  # fmt: skip


def check_optimizer(config: Pretrain) -> Iterator[Finding]:
    """Whether the optimizer of the configuration can be built."""
    from ..training.apex import apex_optimizers

    try:
        apex_optimizers()
        yield Finding("apex", "ok", "NVIDIA apex is installed: --optim.implementation apex can be used")
    except UsageError as error:
        asked = config.optim.implementation == "apex"
        installed = importlib.util.find_spec("apex") is not None
        if asked or installed:
            yield Finding("apex", "fault" if asked else "note", str(error))
        else:
            yield Finding("apex", "ok", "not installed; torch's fused optimizers are used")


def check_distributed(_: Pretrain) -> Iterator[Finding]:
    """Back-ends of torch.distributed."""
    import torch.distributed as dist

    if not dist.is_available():
        yield Finding("distributed", "note", "torch was built without torch.distributed: single process only")
        return
    backends = [name for name in ("nccl", "gloo") if getattr(dist, f"is_{name}_available")()]
    if torch.cuda.device_count() > 1 and "nccl" not in backends:
        yield Finding("distributed", "fault", "several GPUs but no NCCL", "install a torch build with NCCL")
    else:
        yield Finding("distributed", "ok", ", ".join(backends))


def check_threads(_: Pretrain) -> Iterator[Finding]:
    """Settings of threads that slow a CPU down."""
    cores, threads = available_cores(), torch.get_num_threads()
    found = f"{cores} of {os.cpu_count()} cores for this process, torch uses {threads} threads"
    if threads > cores:
        yield Finding("threads", "note", found, f"export OMP_NUM_THREADS={cores}: more threads than cores are slower")
    else:
        yield Finding("threads", "ok", found)


def check_memory(config: Pretrain) -> Iterator[Finding]:
    """Memory that the configuration needs against what there is."""
    available = _available_bytes()
    if available is None:
        yield Finding("memory", "note", "the amount of free memory is unknown on this system")
        return
    pixels = 3 * (len(config.all_policies) * config.view.size**2 * 4 + 375 * 500 * 4)  # views, and four batches decoded
    need = 2 * training_bytes(config) + config.batch_size * pixels
    found = f"{available / GIB:.1f} GiB free; weights, batches and photos of the run need about {need / GIB:.1f} GiB"
    if not torch.cuda.is_available() and need > available:
        yield Finding("memory", "fault", found + " without activations", "pass a smaller --batch-size or backbone")
    else:
        yield Finding("memory", "ok", found + " without activations")
    if config.data.train is None or config.data.order != "random":
        return
    stored = sum(path.stat().st_size for path in expand(config.data.train) if path.is_file())
    if stored > available:
        yield Finding(
            "memory", "note", f"the photos have {stored / GIB:.1f} GiB, more than fits in the page cache",
            "pass --data.order quasi-random if they are not on an SSD",
        )  # fmt: skip


def check_disk(config: Pretrain) -> Iterator[Finding]:
    """Disk space and access of the run folder and the photos."""
    need = (config.checkpoint.keep + 1) * training_bytes(config)
    folder = config.run.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "fault", f"{folder} cannot be written to", "pass --run FOLDER")
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}; checkpoints of this run need {need / GIB:.2f} GiB"
    remedy = "free disk space, or pass another --run or a smaller --checkpoint.keep"
    yield Finding("disk", "fault", found, remedy) if free < need else Finding("disk", "ok", found)
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or os.path.expanduser("~"))  # stays "~" without a home
    if not os.access(cache if cache.exists() else cache.parent, os.W_OK):
        yield Finding(
            "disk", "note", f"{cache} cannot be written to: the CPU kernels are recompiled in every process",
            "export NUMBA_CACHE_DIR=/a/folder/that/can/be/written",
        )  # fmt: skip


def training_bytes(config: Pretrain) -> int:
    """Bytes of weights, momentum encoder, queue and optimizer state of a run, computed without allocating them."""
    from ..runs.build import build_learner

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        learner = build_learner(config, num_classes=1000)
    state = sum(t.numel() * t.element_size() for t in (*learner.parameters(), *learner.buffers()))
    trainable = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    return state + trainable * (2 if config.optim.name in ("adamw", "lamb") else 1)


def _available_bytes() -> int | None:
    """Free memory in bytes: of the system, or of the container's limit if that is less; None if unknown."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(found) if found else None


NEEDS: tuple[Check, ...] = (check_memory, check_disk)
"""Checks of what a run needs; the others check what the machine has."""
CHECKS: tuple[Check, ...] = (
    check_system,
    check_packages,
    check_device,
    check_augmentation,
    check_reader,
    check_compiler,
    check_optimizer,
    check_distributed,
    check_threads,
    *NEEDS,
)

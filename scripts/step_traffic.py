#!/usr/bin/env python3
"""Counts the bytes that a compiled training step moves on an H100, from torch.compile's code, without a GPU.

    scripts/step_traffic.py [--method simsiam] [--sync 8] [--json OUT]

The step of `fastaugself bench step` is traced with fake tensors, its graph is moved to a simulated CUDA device, and
Inductor schedules it and generates its code. A fused kernel counts the bytes it reads and writes, a convolution or
matrix product each operand once. Needs Triton, but no GPU; a ResNet-50 takes about two minutes. The counts hold for
the installed version of torch, and do not say how much of its bandwidth a GPU reaches.

The simulation replaces private functions of torch 2.13, so this is a script and not part of the package.
"""

import argparse
import contextlib
import copy
import dataclasses
import json
import os
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
import torch._dynamo.device_interface as device_interface
import torch._inductor.compile_fx as compile_fx
import torch._inductor.fx_passes.reinplace as reinplace
import triton
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from triton.backends.compiler import GPUTarget

from fastaugself import AugSelf
from fastaugself.bench.setup import METHODS, Setup
from fastaugself.methods.base import Views
from fastaugself.models.norm_function import keep_in_graph
from fastaugself.runs.build import build_learner

H100 = {"major": 9, "multi_processor_count": 132, "regs_per_multiprocessor": 65536, "warp_size": 32,
        "max_threads_per_multi_processor": 2048, "max_threads_per_block": 1024}  # fmt: skip
PROPERTIES = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", minor=0, total_memory=80 << 30, gcnArchName="", L2_cache_size=50 << 20,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472, **H100
)  # fmt: skip


class Driver:
    """The methods of Triton's driver that Inductor calls."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0


class Interface(device_interface.CudaInterface):
    """The methods of the device that Inductor calls."""

    class Worker:
        set_device = staticmethod(lambda device: None)
        current_device = staticmethod(lambda: 0)
        get_device_properties = staticmethod(lambda device=None: PROPERTIES)

    is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_device_properties = staticmethod(lambda device=None: PROPERTIES)
    get_compute_capability = staticmethod(lambda device=None: 90)
    is_triton_capable = staticmethod(lambda device=None: True)
    raise_if_triton_unavailable = staticmethod(lambda device=None: None)
    is_bf16_supported = staticmethod(lambda including_emulation=False: True)


class Generated(Exception):
    """Ends a compilation before its code would be loaded."""


@dataclasses.dataclass
class Part:
    """A graph of the step.

    moved: bytes by kind of kernel. launches: number of kernels. kept: bytes by dtype of the activations that the
    forward pass keeps for the backward pass.
    """

    name: str
    moved: dict[str, int]
    launches: int
    kept: dict[str, int]


class Probe:
    """A backend of torch.compile that generates code for the simulated device without running it."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        return compile_fx.compile_fx(graph, inputs, inner_compile=self._inner)

    def _inner(self, graph: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        runs = copy.deepcopy(graph)
        name = "backward" if options.get("is_backward") else "forward"
        kept: Counter[str] = Counter()
        if name == "backward":
            images = [t for t in inputs if isinstance(t, torch.Tensor) and t.ndim == 4]
            largest = max((t.numel() for t in images), default=0)
            for t in images:
                if t.numel() > largest // 100:  # else a weight
                    kept[str(t.dtype).removeprefix("torch.")] += t.numel() * t.element_size()
        mode = next(t.fake_mode for t in inputs if isinstance(t, FakeTensor))
        with mode:
            moved = _on_cuda(copy.deepcopy(graph))
            arguments = [_like(t, "cuda") if isinstance(t, torch.Tensor) else t for t in inputs]
        options["cudagraphs"] = compile_fx.BoxedBool(False)

        def capture(lowering: GraphLowering) -> None:
            lowering.codegen()
            sizes: Counter[str] = Counter()
            for node in lowering.scheduler.nodes:
                sizes[_kind(node)] += node.get_read_write_buffers_sizes()
            launches = sum(node.get_read_write_buffers_sizes() > 0 for node in lowering.scheduler.nodes)
            self.parts.append(Part(name, dict(sizes), launches, dict(kept)))
            raise Generated

        code = mock.patch.object(GraphLowering, "compile_to_module", capture)
        with contextlib.suppress(Generated), _simulated(), code, DebugContext():
            compile_fx._InProcessFxCompile().codegen_and_compile(moved, arguments, [], options)

        def call(arguments: list[Any]) -> Any:
            taken = list(arguments)
            arguments.clear()
            with torch.no_grad():
                return torch.fx.Interpreter(runs).run(*taken)

        call._boxed_call = True  # type: ignore[attr-defined]
        return call


def _kind(node: Any) -> str:
    if type(node).__name__ == "ExternKernelSchedulerNode":
        name = str(getattr(node.node, "python_kernel_name", "")).lower()
        return "convolutions" if "convolution" in name else "products and operations"
    return "fused, with sums" if node.is_reduction() else "fused"


def _like(t: torch.Tensor, device: str) -> torch.Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)


def _on_cuda(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    cuda = torch.device("cuda", 0)

    def move(value: Any) -> Any:
        return cuda if isinstance(value, torch.device) and value.type == "cpu" else value

    for node in graph.graph.nodes:
        node.args, node.kwargs = pytree.tree_map(move, node.args), pytree.tree_map(move, node.kwargs)
        node.meta = {k: v for k, v in node.meta.items() if k not in ("val", "tensor_meta", "example_value")}
        if node.op == "get_attr" and isinstance(getattr(graph, node.target), torch.Tensor):
            setattr(graph, node.target, _like(getattr(graph, node.target), "cuda"))
    graph.recompile()
    return graph


def _no_copy(inp: torch.Tensor, src: torch.Tensor, view_ops: Any) -> torch.Tensor:
    return inp


@contextlib.contextmanager
def _simulated() -> Iterator[None]:
    """Patches torch and Triton to compile for a CUDA device that does not exist."""
    triton.runtime.driver.set_active(Driver())
    reinplace._inplace_generalized_scatter.__code__ = _no_copy.__code__  # its shape check would copy on the device
    properties = DeviceProperties(type="cuda", index=0, cc=90, **H100)
    patches = [
        mock.patch.dict(device_interface.device_interfaces, {"cuda": Interface}),
        mock.patch.object(DeviceProperties, "create", lambda device: properties),
        mock.patch("torch._C._conv_determine_backend_memory_format", lambda *_: torch.channels_last),  # cuDNN's
        mock.patch("torch._inductor.scheduler.has_triton", lambda *_: True),
        mock.patch("torch.utils._triton.triton_hash_with_backend", lambda: "simulated"),
        mock.patch("torch.cuda.get_device_properties", lambda *_: PROPERTIES),
        mock.patch("torch.cuda.get_device_capability", lambda *_: (9, 0)),
        mock.patch("torch.cuda.current_device", lambda: 0),
        mock.patch("torch.cuda.is_bf16_supported", lambda *_: True),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def step_parts(setup: Setup, *, sync: int = 0, batched_views: bool = True, augself: bool = True) -> list[Part]:
    """The graphs of a step in bf16, channels-last.

    sync: number of processes of synchronised batch norm, 0 for plain batch norm. batched_views: both views in one pass.
    """
    config, B, S = setup.config(), setup.batch, setup.size
    if sync:
        config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, batch_norm="sync"))
    if not augself:
        config = dataclasses.replace(config, augself=AugSelf(crop=0, color=0))
    learner, probe = build_learner(config, batched_views=batched_views).to(memory_format=torch.channels_last), Probe()  # type: ignore[call-overload]
    keep_in_graph()
    processes = max(1, sync)
    ranks = (
        mock.patch.object(torch.distributed, "is_initialized", lambda: processes > 1),
        mock.patch.object(torch.distributed, "get_world_size", lambda *_: processes),
        mock.patch.object(torch.distributed, "get_rank", lambda *_: 0),
    )
    with contextlib.ExitStack() as stack:
        for patch in ranks:
            stack.enter_context(patch)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for module in learner.modules():
            for name, p in list(module._parameters.items()):
                if p is not None:
                    module._parameters[name] = torch.nn.Parameter(_like(p, "cpu"), requires_grad=p.requires_grad)
            for name, b in list(module._buffers.items()):
                if b is not None:
                    module._buffers[name] = _like(b, "cpu")
        x_VBCHW = torch.empty(2, B, S, S, 3, dtype=torch.bfloat16).permute(0, 1, 4, 2, 3)
        views = Views(
            x_VBCHW,
            torch.empty(B, dtype=torch.int64),
            params_VBP=torch.empty(2, B, 16),
            sizes_B2=torch.empty(B, 2, dtype=torch.int32),
        )
        compiled = torch.compile(learner, backend=probe, dynamic=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = compiled(views).loss
        loss.backward()
    return probe.parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="moco")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="of the views in pixels")
    parser.add_argument("--batch", type=int, default=256, help="local batch size in pairs")
    parser.add_argument("--sync", type=int, default=0, help="processes of synchronised batch norm (default: plain)")
    parser.add_argument("--views-one-by-one", action="store_true", help="like --batched-views off")
    parser.add_argument("--no-augself", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup = Setup(
        method=options.method, backbone=options.backbone, size=options.size, batch=options.batch, queue=65536,
        device="cpu",
    )  # fmt: skip
    parts = step_parts(
        setup, sync=options.sync, batched_views=not options.views_one_by_one, augself=not options.no_augself
    )
    mega = options.batch * 1e6
    for part in parts:
        print(f"{part.name}: {sum(part.moved.values()) / mega:.1f} MB per pair, {part.launches} kernels")
        for kind, size in sorted(part.moved.items(), key=lambda item: -item[1]):
            print(f"    {kind:26} {size / mega:7.1f}")
        for dtype, size in part.kept.items():
            print(f"    kept images in {dtype:11} {size / mega:7.1f}")
    print(f"total: {sum(sum(part.moved.values()) for part in parts) / mega:.1f} MB per pair")
    if options.json is not None:
        record = {"torch": torch.__version__, "triton": triton.__version__, "setup": dataclasses.asdict(setup)}
        record |= {"options": {k: str(v) for k, v in vars(options).items()}, "parts": [vars(part) for part in parts]}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Registering operations with torch, so that torch.compile, FakeTensors and CUDA graphs can see them.

`torch.library.custom_op` would do the same, but its first call imports torch._dynamo: seconds in every process, workers
of a DataLoader included. `Library.define` and `impl` are what it is made of.
"""

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "fastaugself"
"""`export_hub.py` replaces it, so that a copy loaded from the Hugging Face Hub can be used beside an installed one."""

# What a library registered goes with it: a module that is reloaded keeps the one it has.
_library = globals().get("_library") or torch.library.Library(NAMESPACE, "FRAGMENT")


def register(
    name: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Registers `function`, which changes none of its arguments and returns new tensors, as an operation.

    name: without the namespace. fake: returns empty tensors of the right shapes, for tracing. backward, setup_context:
    as for `torch.library.register_autograd`. Returns the operation, which is called as `function` is; where this
    package is imported a second time (reloaded, or under another name), that of the first import.
    Raises RuntimeError where another version of the package has registered an operation of other arguments.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    first = getattr(getattr(torch.ops, NAMESPACE), name, None)
    if first is not None:
        if str(first.default._schema) != f"{NAMESPACE}::{name}{schema}":
            raise RuntimeError(
                f"another version of {__package__} is loaded in this process, with other arguments of {name}; start a "
                "new process, and import one of the two"
            )
        return first.default
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup_context, lib=_library)
    return getattr(getattr(torch.ops, NAMESPACE), name).default

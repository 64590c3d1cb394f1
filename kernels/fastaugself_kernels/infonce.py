"""InfoNCE against a queue of negatives without its B x K logits.

The loss of a query q with the positive key k and the negatives n_1..n_K is (He 2019, arXiv 1911.05722, eq. 1)

    loss = logaddexp(l, L) - l,    l = q·k / T,    L = logsumexp_i(q·n_i / T)
    dloss/dq = (exp(L - loss - l) O + (exp(-loss) - 1) k) / T,    O = sum_i softmax_i(q·n_i / T) n_i

L and O are the log-sum-exp and the output of an attention with the queue as keys *and* values, so one call of a fused
attention gives the loss and its gradient, and nothing of the size of the logits is ever written.

Shape suffixes: B batch, D features, K queue, S splits of the queue.
"""

from typing import Any

import torch
from torch import Tensor

from ._ops import register

SPLIT_ROWS = 256  # rows of the queue that one split holds at least
SPLITS = 64  # at most: with 256 queries that is 128 thread blocks, one for each SM of an H100
QUERIES_PER_BLOCK = 128
FLASH_FEATURES = 256  # CUDA's flash kernels take no more


def infonce(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """The InfoNCE loss of each query, differentiable with respect to the queries only.

    q_BD: queries, any float dtype, usually L2-normalised; gradients flow here.
    k_BD: positive keys, any float dtype, without gradients.
    queue_KD: negative keys. The attention runs in its dtype: bfloat16 halves the traffic at about 1e-3 of the loss.
    temperature: above 0, divides the similarities.
    Returns loss_B: float32 (float64 if all three are).
    Raises ValueError for wrong shapes, dtypes, devices or temperatures, and for keys that ask for a gradient.

    Formula: He 2019 (arXiv 1911.05722), eq. 1; the gradient is this module's docstring.
    """
    _check(q_BD, k_BD, queue_KD, temperature)
    loss_B, _ = infonce_op(q_BD, k_BD, queue_KD, float(temperature))
    return loss_B


def infonce_with_gradient(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the queries: what the registered operation computes."""
    dtype = _result_dtype(q_BD, k_BD, queue_KD)
    L_B, O_BD = _attend(q_BD, queue_KD, 1 / temperature, dtype)
    # Elementwise products and sums only: autocast would take a matmul to a lower precision.
    q_BD, k_BD = q_BD.to(dtype), k_BD.to(dtype)
    l_B = (q_BD * k_BD).sum(1) / temperature
    total_B = torch.logaddexp(l_B, L_B)
    negatives_BD = torch.exp(L_B - total_B).unsqueeze(1) * O_BD
    positive_BD = torch.expm1(l_B - total_B).unsqueeze(1) * k_BD
    return total_B - l_B, (negatives_BD + positive_BD) / temperature


def _fake(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    dtype = _result_dtype(q_BD, k_BD, queue_KD)
    return q_BD.new_empty(q_BD.shape[0], dtype=dtype), q_BD.new_empty(q_BD.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad_B: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    (gradient_BD,) = ctx.saved_tensors
    return (grad_B[:, None] * gradient_BD).to(ctx.dtype), None, None, None


infonce_op = register("infonce", infonce_with_gradient, _fake, backward=_backward, setup_context=_setup_context)


def _result_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if all(t.dtype == torch.float64 for t in tensors) else torch.float32


def _attend(q_BD: Tensor, queue_KD: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-sum-exp [B] and attention output [B, D] of the queries over the queue.

    The queue is viewed as S heads so that a batch of a few hundred queries fills a GPU, and all the cores of a CPU.
    What S does not divide is one more, shorter head. Their outputs are merged by their log-sum-exps.
    """
    B, D = q_BD.shape
    K = queue_KD.shape[0]
    if queue_KD.is_cuda and D % 8:  # the kernels load 16 bytes at a time; zeros change no product
        q_BD, queue_KD = (torch.nn.functional.pad(x, (0, 8 - D % 8)) for x in (q_BD, queue_KD))
    q_BD = q_BD.to(queue_KD.dtype)
    queue_KD = queue_KD.contiguous()
    blocks = -(-B // QUERIES_PER_BLOCK)
    splits = max(1, min(SPLITS, K // SPLIT_ROWS, 4 * SPLITS // blocks))
    rows = K // splits
    whole_KD, rest_KD = queue_KD.split((splits * rows, K - splits * rows))
    parts = [_fused_attention(q_BD, whole_KD.view(splits, rows, -1), scale)]
    if splits * rows < K:
        parts.append(_fused_attention(q_BD, rest_KD.unsqueeze(0), scale))
    lse_SB = torch.cat([lse for _, lse in parts]).to(dtype)
    L_B = torch.logsumexp(lse_SB, 0)
    weights_SB1 = torch.exp(lse_SB - L_B).unsqueeze(2)
    O_BD = (weights_SB1 * torch.cat([out for out, _ in parts])).sum(0)
    return L_B, O_BD.narrow(1, 0, D)


def _fused_attention(q_BD: Tensor, queue_SRD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output [S, B, D] and log-sum-exp [S, B] of one fused attention over S heads of R keys, which are the values."""
    S, _, D = queue_SRD.shape
    B = q_BD.shape[0]
    q_1SBD = q_BD.expand(1, S, B, D)
    keys_1SRD = queue_SRD.unsqueeze(0)
    aten = torch.ops.aten
    if not q_BD.is_cuda:
        results = aten._scaled_dot_product_flash_attention_for_cpu(q_1SBD, keys_1SRD, keys_1SRD, scale=scale)
    elif _flash(q_BD, D):
        results = aten._scaled_dot_product_flash_attention(q_1SBD, keys_1SRD, keys_1SRD, scale=scale)
    else:
        results = aten._scaled_dot_product_efficient_attention(q_1SBD, keys_1SRD, keys_1SRD, None, True, scale=scale)
    out, lse = results[:2]
    # The efficient kernel pads its log-sum-exp to whole blocks of queries.
    return out.squeeze(0), lse.squeeze(0).narrow(1, 0, B)


def _flash(q_BD: Tensor, D: int) -> bool:
    """Whether CUDA's flash kernels take this; the memory-efficient ones take the rest (float32, older GPUs)."""
    half = q_BD.dtype in (torch.float16, torch.bfloat16)
    return half and D <= FLASH_FEATURES and torch.cuda.get_device_capability(q_BD.device) >= (8, 0)


def _check(q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, temperature: float) -> None:
    for name, tensor in (("q_BD", q_BD), ("k_BD", k_BD), ("queue_KD", queue_KD)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}; pass torch.as_tensor({name})")
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"{name} must be a matrix of floats, got {tensor.dtype} {list(tensor.shape)}")
        if tensor.device != q_BD.device:
            raise ValueError(f"{name} is on {tensor.device}, q_BD on {q_BD.device}; move one of them")
        if tensor.shape[0] == 0:
            raise ValueError(f"{name} is empty, got {list(tensor.shape)}; at least one row is needed")
    if k_BD.shape != q_BD.shape:
        raise ValueError(f"k_BD must have the shape of q_BD {list(q_BD.shape)}, got {list(k_BD.shape)}")
    if queue_KD.shape[1] != q_BD.shape[1]:
        raise ValueError(f"queue_KD must be [K, {q_BD.shape[1]}] as q_BD's features, got {list(queue_KD.shape)}")
    if queue_KD.is_cuda and queue_KD.dtype == torch.float64:
        raise ValueError("queue_KD is float64, for which CUDA has no fused attention; pass queue_KD.float()")
    if torch.is_grad_enabled() and (k_BD.requires_grad or queue_KD.requires_grad):
        name = "k_BD" if k_BD.requires_grad else "queue_KD"
        raise ValueError(f"{name} requires a gradient, but infonce has one for q_BD only; pass {name}.detach()")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0 (0.2 in MoCo v2), got {temperature!r}")

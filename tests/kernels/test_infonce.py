"""InfoNCE through fused attention: loss and gradient against the plain formula in float64."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastaugself_kernels import infonce
from fastaugself_kernels.infonce import infonce_op, infonce_with_gradient

# (B, D, K, temperature): whole splits, splits with a rest, one short split, a prime queue, tiny, odd features.
SIZES = [
    (256, 128, 4096, 0.2),
    (64, 128, 16384, 0.07),
    (33, 64, 1000, 0.2),
    (5, 32, 100, 0.1),
    (7, 48, 2053, 0.5),
    (1, 1, 1, 1.0),
    (300, 37, 777, 0.2),
]
# dtype of the queue: error of the loss and relative error of the gradient, both against float64
TOLERANCES = {torch.float64: (1e-12, 1e-12), torch.float32: (2e-5, 1e-5), torch.bfloat16: (2e-2, 1e-2)}


def unit_rows(rows, features, generator):
    return F.normalize(torch.randn(rows, features, dtype=torch.float64, generator=generator))


def problem(B, D, K):
    generator = torch.Generator().manual_seed(B + D + K)
    q_BD = unit_rows(B, D, generator)
    k_BD = F.normalize(q_BD + 0.5 * unit_rows(B, D, generator))  # a positive is closer than chance
    return q_BD, k_BD, unit_rows(K, D, generator)


def plain(q_BD, k_BD, queue_KD, temperature):
    """Cross entropy over the logits, as the MoCo paper's pseudocode has it."""
    logits = torch.cat([(q_BD * k_BD).sum(1, keepdim=True), q_BD @ queue_KD.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q_BD), dtype=torch.long), reduction="none")


def loss_and_gradient(loss, q_BD, *others):
    q_BD = q_BD.clone().requires_grad_()
    loss_B = loss(q_BD, *others)
    weights_B = torch.linspace(0.5, 2, len(loss_B), dtype=loss_B.dtype)  # so that rows cannot stand for each other
    return loss_B.detach(), torch.autograd.grad((loss_B * weights_B).sum(), q_BD)[0]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("B,D,K,temperature", SIZES, ids=lambda x: str(x))
def test_equals_the_plain_formula(B, D, K, temperature, dtype):
    q_BD, k_BD, queue_KD = problem(B, D, K)
    expected_B, expected_BD = loss_and_gradient(plain, q_BD, k_BD, queue_KD, temperature)
    other = torch.float64 if dtype == torch.float64 else torch.float32  # q and k stay exact when the queue is bf16
    loss_B, gradient_BD = loss_and_gradient(infonce, q_BD.to(other), k_BD.to(other), queue_KD.to(dtype), temperature)
    assert loss_B.shape == (B,) and loss_B.dtype == other
    assert gradient_BD.dtype == other
    loss_tolerance, gradient_tolerance = TOLERANCES[dtype]
    assert (loss_B - expected_B).abs().max() <= loss_tolerance
    if K > 1:
        assert (gradient_BD - expected_BD).norm() <= gradient_tolerance * expected_BD.norm()


def test_gradient_equals_finite_differences():
    q_BD, k_BD, queue_KD = problem(6, 8, 700)
    assert torch.autograd.gradcheck(lambda q: infonce(q, k_BD, queue_KD, 0.2), q_BD.requires_grad_())


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["unit", "logits of thousands"])
def test_large_logits_stay_finite(scale):
    q_BD, k_BD, queue_KD = (x.float() for x in problem(16, 32, 600))
    expected_B, _ = loss_and_gradient(plain, (q_BD * scale).double(), k_BD.double(), queue_KD.double(), 0.05)
    loss_B, gradient_BD = loss_and_gradient(infonce, q_BD * scale, k_BD, queue_KD, 0.05)
    assert torch.isfinite(gradient_BD).all()
    torch.testing.assert_close(loss_B.double(), expected_B, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("queue_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dtypes_mix_and_autocast_changes_nothing(dtype, queue_dtype):
    q_BD, k_BD, queue_KD = problem(32, 64, 1024)
    q_BD, k_BD, queue_KD = q_BD.to(dtype), k_BD.to(torch.bfloat16), queue_KD.to(queue_dtype)
    loss_B, gradient_BD = loss_and_gradient(infonce, q_BD, k_BD, queue_KD, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        again_B, again_BD = loss_and_gradient(infonce, q_BD, k_BD, queue_KD, 0.2)
    assert loss_B.dtype == again_B.dtype == torch.float32
    assert gradient_BD.dtype == again_BD.dtype == dtype
    assert torch.equal(loss_B, again_B) and torch.equal(gradient_BD, again_BD)
    expected_B, _ = loss_and_gradient(plain, q_BD.double(), k_BD.double(), queue_KD.double(), 0.2)
    assert (loss_B - expected_B).abs().max() <= (2e-2 if queue_dtype == torch.bfloat16 else 2e-5)


def test_nothing_of_the_size_of_the_logits_is_made():
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else (out,):
                if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() != queue_KD.data_ptr():
                    self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
            return out

    B, D, K = 512, 32, 8192
    q_BD, k_BD, queue_KD = (x.float() for x in problem(B, D, K))
    with Largest() as seen:
        infonce_with_gradient(q_BD, k_BD, queue_KD, 0.2)
    assert 0 < seen.elements <= B * K // 8  # the partial outputs of the splits: D / 256 of the logits


def test_compiles_as_one_graph_forward_and_backward():
    q_BD, k_BD, queue_KD = (x.float() for x in problem(16, 32, 600))

    def step(q_BD, k_BD, queue_KD):
        return infonce(F.normalize(q_BD * 2), k_BD, queue_KD, 0.2)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    expected = loss_and_gradient(step, q_BD, k_BD, queue_KD)
    for ours, theirs in zip(loss_and_gradient(compiled, q_BD, k_BD, queue_KD), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("flash,dtype", [(True, torch.bfloat16), (False, torch.float32)], ids=["flash", "efficient"])
def test_cuda_branches_fit_the_operators_of_torch(flash, dtype, monkeypatch):
    """Shapes only, on fake tensors: that the calls match torch's schemas can be known without a GPU."""
    monkeypatch.setattr(importlib.import_module("fastaugself_kernels.infonce"), "_flash", lambda *_: flash)
    with FakeTensorMode():
        q_BD, k_BD = (torch.empty(33, 37, device="cuda") for _ in range(2))
        loss_B, gradient_BD = infonce_with_gradient(q_BD, k_BD, torch.empty(777, 37, dtype=dtype, device="cuda"), 0.2)
    assert loss_B.shape == (33,) and gradient_BD.shape == (33, 37)
    assert loss_B.dtype == gradient_BD.dtype == torch.float32


def test_registration_is_sound():
    q_BD, k_BD, queue_KD = (x.float() for x in problem(4, 16, 300))
    torch.library.opcheck(infonce_op, (q_BD.requires_grad_(), k_BD, queue_KD, 0.2))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"k": torch.zeros(3, 8)}, "k_BD must have the shape of q_BD"),
        ({"queue": torch.zeros(9, 7)}, "queue_KD must be"),
        ({"queue": torch.zeros(0, 8)}, "queue_KD is empty"),
        ({"q": torch.zeros(0, 8), "k": torch.zeros(0, 8)}, "q_BD is empty"),
        ({"queue": torch.zeros(9, 8, dtype=torch.int64)}, "matrix of floats"),
        ({"q": torch.zeros(8)}, "q_BD must be a matrix"),
        ({"k": torch.zeros(4, 8).numpy()}, r"k_BD must be a tensor, got ndarray; pass torch.as_tensor\(k_BD\)"),
        ({"queue": torch.zeros(9, 8, device="meta")}, "queue_KD is on meta"),
        ({"k": torch.zeros(4, 8, requires_grad=True)}, r"pass k_BD.detach\(\)"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
    ],
    ids=lambda x: x.replace(" ", "_") if isinstance(x, str) else "",
)
def test_refuses_with_a_remedy(change, message):
    arguments = {"q": torch.zeros(4, 8), "k": torch.zeros(4, 8), "queue": torch.zeros(9, 8), "temperature": 0.2}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        infonce(arguments["q"], arguments["k"], arguments["queue"], arguments["temperature"])

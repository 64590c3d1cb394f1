"""Tests that need a CUDA device: kernels against the CPU oracle, and training steps without host sync."""

import os
import subprocess
import sys

import pytest
import torch

from fastaugself_kernels import ViewPolicy, augment, augself_targets, descriptors, infonce, sample_params

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

EVERYTHING = ViewPolicy(size=64, rotation=0.5, solarize=0.5, solarize_threshold=(0.0, 1.0), jitter=0.9, gray=0.3)
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def packed(count, seed=0, low=40, high=300):
    """Smooth images of different sizes, packed: (pixels, offsets_B, sizes_B2) on the CPU."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.randint(low, high, (count, 2), generator=random, dtype=torch.int32)
    images = []
    for h, w in sizes.tolist():
        coarse = torch.rand(1, 3, 9, 12, generator=random)
        image = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic")[0].clamp(0, 1) * 255
        images.append(image.permute(1, 2, 0).to(torch.uint8).contiguous().view(-1))
    lengths = torch.tensor([len(image) for image in images])
    return torch.cat(images), lengths.cumsum(0) - lengths, sizes


def on_cuda(*tensors):
    return [t.cuda() for t in tensors]


def test_parameters_have_the_same_bits_as_on_the_cpu():
    ids = torch.cat([torch.arange(3000), torch.tensor([2**33 + 1, -1, 2**62])])
    sizes = torch.randint(1, 2000, (len(ids), 2), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    policies = (EVERYTHING, ViewPolicy.byol(0), ViewPolicy.byol(1))
    for seed, epoch in ((0, 0), (2**63 + 5, 2**32 - 1), (-3, 7)):
        expected = sample_params(ids, sizes, policies, seed=seed, epoch=epoch)
        got = sample_params(ids.cuda(), sizes.cuda(), policies, seed=seed, epoch=epoch)
        assert torch.equal(got.cpu(), expected)


def test_targets_and_descriptors_have_the_same_bits_as_on_the_cpu():
    ids, sizes = torch.arange(1000), torch.randint(1, 2000, (1000, 2), generator=torch.Generator().manual_seed(1))
    policies = (EVERYTHING, ViewPolicy.byol(1))
    params, shift = sample_params(ids, sizes, policies, seed=1, epoch=0), torch.rand(2, 1000, 3)
    for mode in ("published", "fixed"):
        expected = augself_targets(params, sizes, policies, mode=mode)
        for got, want in zip(augself_targets(params.cuda(), sizes.cuda(), policies, mode=mode), expected, strict=True):
            assert all(torch.equal(x.cpu(), y) for x, y in zip(got, want, strict=True))
    found = descriptors(params.cuda(), sizes.cuda(), policies, shift.cuda())
    assert torch.equal(found.cpu(), descriptors(params, sizes, policies, shift))


@pytest.mark.parametrize("size", [32, 64, 96, 224, (72, 88), 51])
def test_views_match_the_oracle(size):
    pixels, offsets, sizes = packed(16)
    policy = ViewPolicy.moco_v2() if isinstance(size, tuple) else EVERYTHING
    params = sample_params(torch.arange(16), sizes, (policy, policy), seed=3, epoch=1)
    options = dict(size=size, rounding="none", color_shift=True, **UNIT)
    expected, shift = augment(pixels, offsets, sizes, params, backend="reference", **options)
    # Solarize is discontinuous, so an ulp can invert a pixel: its rows are compared by the fraction of such pixels.
    smooth = (params[..., 14] > 1)[..., None, None, None]
    got, got_shift = augment(*on_cuda(pixels, offsets, sizes, params), **options)
    error = (got.cpu() - expected).abs()
    assert (error * smooth).max() <= 1e-5
    assert (error > 1e-5).float().mean() < 1e-4
    assert (got_shift.cpu() - shift).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs_are_the_rounded_views(dtype):
    pixels, offsets, sizes = packed(8)
    params = sample_params(torch.arange(8), sizes, (ViewPolicy.moco_v2(),) * 2, seed=3, epoch=1)
    expected = augment(pixels, offsets, sizes, params, size=224, backend="reference", rounding="none", **UNIT)
    got = augment(*on_cuda(pixels, offsets, sizes, params), size=224, rounding="none", dtype=dtype, **UNIT)
    assert got.dtype == dtype and got[0].is_contiguous(memory_format=torch.channels_last)
    assert (got.float().cpu() - expected).abs().max() <= (2e-3 if dtype == torch.float16 else 8e-3)


def test_views_do_not_depend_on_batch_order_or_shard():
    pixels, offsets, sizes = packed(12)
    ids = torch.arange(12)
    params = sample_params(ids, sizes, (EVERYTHING,) * 2, seed=3, epoch=1)
    whole = augment(*on_cuda(pixels, offsets, sizes, params), size=224)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = augment(*on_cuda(pixels, offsets[order], sizes[order], params[:, order].contiguous()), size=224)
    assert torch.equal(whole[:, order.cuda()], shuffled)


def test_a_batch_is_made_without_a_host_sync_and_within_a_graph():
    pixels, offsets, sizes = on_cuda(*packed(8))
    ids = torch.arange(8, device="cuda")
    policies = (ViewPolicy.moco_v2(),) * 2

    def make():
        params = sample_params(ids, sizes, policies, seed=3, epoch=1)
        views, shift = augment(pixels, offsets, sizes, params, size=224, dtype=torch.bfloat16, color_shift=True)
        return views, shift, augself_targets(params, sizes, policies), descriptors(params, sizes, policies, shift)

    expected = make()[0]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        make()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = make()[0]
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)


def test_the_debug_mode_finds_wrong_rows_on_the_device():
    script = """
import torch
from fastaugself_kernels import ViewPolicy, augment, sample_params
sizes = torch.full((4, 2), 40, device="cuda")
params = sample_params(torch.arange(4).cuda(), sizes, (ViewPolicy(),), seed=0, epoch=0)
pixels = torch.zeros(4, 40, 40, 3, dtype=torch.uint8, device="cuda")
torch.cuda.set_sync_debug_mode("error")
augment(pixels, None, sizes, params, size=32)
params[0, 2, 0] = 41.0
torch.cuda.set_sync_debug_mode("default")
augment(pixels, None, sizes, params, size=32)
torch.cuda.synchronize()
"""
    environment = os.environ | {"FASTAUGSELF_DEBUG": "1"}
    result = subprocess.run([sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode != 0 and "a row of params_VBP crops outside its image" in result.stdout + result.stderr


def test_augment_compiles_whole():
    pixels, offsets, sizes = on_cuda(*packed(4))
    params = sample_params(torch.arange(4).cuda(), sizes, (ViewPolicy.moco_v2(),) * 2, seed=3, epoch=1)

    def normalised_mean(params):
        return augment(pixels, offsets, sizes, params, size=64).square().mean()

    compiled = torch.compile(normalised_mean, fullgraph=True)
    assert torch.allclose(compiled(params), normalised_mean(params), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_infonce_matches_the_plain_formula(dtype):
    random = torch.Generator().manual_seed(0)
    q, k, queue = (
        torch.nn.functional.normalize(torch.randn(n, 128, generator=random), dim=1) for n in (256, 256, 4096)
    )
    exact = q.double().requires_grad_()
    logits = torch.cat([(exact * k.double()).sum(1, keepdim=True), exact @ queue.to(dtype).double().T], 1) / 0.2
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(256, dtype=torch.long), reduction="none")
    expected.sum().backward()
    q_cuda = q.cuda().requires_grad_()
    loss = infonce(q_cuda, k.cuda(), queue.cuda().to(dtype), 0.2)
    loss.sum().backward()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert (loss.double().cpu() - expected).abs().max() <= tolerance
    assert (q_cuda.grad.double().cpu() - exact.grad).norm() / exact.grad.norm() <= tolerance


@pytest.mark.parametrize("compile", ["off", "on"])
def test_training_steps_on_cuda_learn_without_a_host_sync(beton, tmp_path, compile):
    from fastaugself import Augment, AugSelf, Backbone, Data, Log, MoCo, Optim, Pretrain
    from fastaugself.distributed import World
    from fastaugself.training.trainer import Trainer

    config = Pretrain(
        data=Data(train=beton, source="native"),
        view=ViewPolicy.moco_v2(32),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18", width=16, stem="small"),
        method=MoCo(queue=64, dim=32),
        augself=AugSelf(crop=0.5, color=0.5, hidden=64),
        optim=Optim(lr=0.05),
        log=Log(every=10, tensorboard=False),
        run=tmp_path,
        epochs=20,
        batch_size=32,
        device="cuda",
        compile=compile,
    )
    trainer = Trainer(config, World.single("cuda:0"))
    try:
        with torch.random.fork_rng():
            batches = trainer.batches()
            losses = [trainer.train_step(batch).loss for batch in (next(batches) for _ in range(3))]
            batch = next(batches)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                losses.append(trainer.train_step(batch).loss)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            batches.close()
        assert all(torch.isfinite(loss) for loss in losses)
    finally:
        trainer.close()

"""Losses over several processes are those of the whole batch, and so are queues and centres."""

import subprocess
import sys

import pytest
import torch

WORKER = """
import sys
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn import Identity
from fastaugself.methods.barlow import redundancy_loss
from fastaugself.methods.base import BuildContext, Views
from fastaugself.aware.cassle import CASSLE
from fastaugself.methods.dino import DINO
from fastaugself.methods.lejepa import sigreg
from fastaugself.methods.mocov3 import contrastive_loss
from fastaugself.methods.nnclr import NNCLR, neighbour_loss
from fastaugself.methods.simclr import nt_xent
from fastaugself.methods.swav import SwAV, sinkhorn
from fastaugself.methods.vicreg import vicreg_terms

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{world}", rank=rank, world_size=world)
z1, z2 = torch.load(f"{folder}/inputs.pt")
results = {}
for name, loss in {
    "simclr": lambda a, b: nt_xent(F.normalize(a, dim=1), F.normalize(b, dim=1), 0.2, gather=True),
    "simclr, local": lambda a, b: nt_xent(
        F.normalize(a, dim=1), F.normalize(b, dim=1), 0.2, gather=True, local=[F.normalize(a * b, dim=1)]
    ),
    "barlow": lambda a, b: redundancy_loss(a, b, 0.0051),
    "mocov3": lambda a, b: contrastive_loss(a, b, 0.2),
    "mocov3, parts": lambda a, b: contrastive_loss(torch.cat([a, a * b, a.square()]), b, 0.2),
    "nnclr": lambda a, b: neighbour_loss(F.normalize(a, dim=1), b, 0.2),
    "lejepa": lambda a, b: sigreg(torch.stack([a, b]), torch.eye(6), knots=17, limit=3.0),
    "vicreg": lambda a, b: sum(vicreg_terms([a, b])),
    "vicreg, wide": lambda a, b: sum(vicreg_terms([torch.cat([a, a * b], 1), torch.cat([b, a.square()], 1)])),
}.items():
    a, b = (z.chunk(world)[rank].clone().requires_grad_() for z in (z1, z2))
    value = loss(a, b)
    (value / world).backward()  # DDP averages over processes
    results[name] = (value.detach(), a.grad, b.grad)
results["swav"] = sinkhorn(z1.chunk(world)[rank], 0.5, 3)
torch.manual_seed(0)
method = SwAV(dim=6, hidden=8, prototypes=5, queue=16, queue_start=0.0).build(BuildContext(Identity(), 6, sync=True))
for step in range(4):  # the queue is full after two
    x = torch.stack([z1.roll(step, 0), z2.roll(step, 1)]).chunk(world, 1)[rank]
    output = method(Views(x, torch.zeros(8 // world).long()))
    method.after_optimizer_step()
    method.update_ema(0.5)
    method.update_queue(output.queue_update, 0.5)
results["swav queue"] = (output.loss.detach(), method.queue_2LE)
torch.manual_seed(0)
method = NNCLR(dim=6, hidden=8, predictor_hidden=8, queue=16).build(BuildContext(Identity(), 6, sync=True))
for step in range(4):
    x = torch.stack([z1.roll(step, 0), z2.roll(step, 1)]).chunk(world, 1)[rank]
    output = method(Views(x, torch.zeros(8 // world).long()))
    method.update_queue(output.queue_update, 0.5)
results["nnclr queue"] = (output.loss.detach(), method.queue_KE)
torch.manual_seed(0)
method = DINO(dim=6, hidden=8, prototypes=5).build(BuildContext(Identity(), 6, sync=True))
for step in range(4):
    x = torch.stack([z1.roll(step, 0), z2.roll(step, 1)]).chunk(world, 1)[rank]
    output = method(Views(x, torch.zeros(8 // world).long(), local_LBCHW=x[:1] * 2))
    method.update_ema(0.5)
    method.update_queue(output.queue_update, 0.5)
results["dino centre"] = (output.loss.detach(), method.center_K)
torch.save(results, f"{folder}/{world}-{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_losses_over_processes_equal_the_loss_of_the_whole_batch(world, tmp_path):
    random = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(8, 6, generator=random) for _ in range(2))
    torch.save((z1, z2), tmp_path / "inputs.pt")
    results = {}
    for size in (1, world):
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        processes = [subprocess.Popen([*command, str(rank), str(size)]) for rank in range(size)]
        assert [process.wait(timeout=120) for process in processes] == [0] * size
        results[size] = [torch.load(tmp_path / f"{size}-{rank}.pt") for rank in range(size)]
    for name in (
        "simclr",
        "simclr, local",
        "barlow",
        "mocov3",
        "mocov3, parts",
        "nnclr",
        "lejepa",
        "vicreg",
        "vicreg, wide",
    ):
        whole, parts = results[1][0][name], [part[name] for part in results[world]]
        torch.testing.assert_close(sum(part[0] for part in parts) / world, whole[0], atol=1e-5, rtol=1e-5)
        for i in (1, 2):
            if whole[i] is not None:
                torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat([part["swav"] for part in results[world]]), results[1][0]["swav"])
    for name in ("swav queue", "nnclr queue", "dino centre"):
        loss, queue = results[1][0][name]
        parts = [part[name] for part in results[world]]
        torch.testing.assert_close(sum(part[0] for part in parts) / world, loss, atol=1e-5, rtol=1e-5)
        for part in parts:  # each process has the state of the global batch
            torch.testing.assert_close(part[1], queue, atol=1e-5, rtol=1e-5)

"""NNCLR against its formulas in float64, its neighbours against a search in a loop, and its queue."""

import copy

import torch
import torch.nn.functional as F
from method_cases import build, views

from fastaugself.methods.nnclr import nearest, neighbour_loss


def plain_loss(n, p, temperature):
    """Equation 3, sample by sample: the denominator is over the predictions of the batch, the own one too."""
    n, p = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (n, p))
    losses = []
    for i in range(len(n)):
        similarity = [torch.exp(n[i] @ p[k] / temperature) for k in range(len(p))]
        losses.append(-torch.log(similarity[i] / sum(similarity)))
    return sum(losses) / len(losses)


def plain_nearest(z, queue):
    """The index of the nearest entry by Euclidean distance of the unit vectors."""
    z = z.double() / z.double().norm(dim=1, keepdim=True)
    return [min(range(len(queue)), key=lambda k: float((x - queue[k].double()).square().sum())) for x in z]


def test_neighbours_are_the_nearest_entries_of_the_queue():
    random = torch.Generator().manual_seed(0)
    queue = F.normalize(torch.randn(37, 5, generator=random), dim=1)
    z = 100 * torch.randn(11, 5, generator=random)
    found = plain_nearest(z, queue)
    assert len(set(found)) > 5
    assert torch.equal(nearest(z, queue), queue[found])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(z, queue), queue[found])


def test_the_loss_is_equation_3_and_symmetric():
    method, batch = build("nnclr"), views(7)
    twin = copy.deepcopy(method)
    output = method(batch)
    z = [twin.projector(twin.backbone(x)) for x in batch.x_VBCHW]
    p = [twin.predictor(x) for x in z]
    n = [twin.queue_KE[plain_nearest(x.detach(), twin.queue_KE)] for x in z]
    expected = (plain_loss(n[0], p[1], 0.1) + plain_loss(n[1], p[0], 0.1)) / 2
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.queue_update[0], F.normalize(z[0], dim=1))


def test_no_gradient_flows_into_the_neighbours():
    """Without the predictor's gradient the encoder has none: the neighbours are entries of the queue."""
    method = build("nnclr")
    method.predictor.register_forward_hook(lambda module, inputs, output: output.detach())
    assert not method(views()).loss.requires_grad


def test_the_loss_is_float32_under_autocast():
    random = torch.Generator().manual_seed(0)
    n, p = (F.normalize(torch.randn(6, 9, generator=random), dim=1) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = neighbour_loss(n, p, 0.1)
    assert torch.equal(rounded, neighbour_loss(n, p, 0.1))


def test_the_queue_is_a_ring_of_the_first_views_embeddings():
    method = build("nnclr")
    expected, entries = method.queue_KE.clone(), []
    for step in range(3):
        output = method(views(10, seed=step))
        entries.append(output.queue_update[0])
        method.update_queue(output.queue_update, 0.5)
    for i, entry in enumerate(torch.cat(entries)):
        expected[i % 24] = entry
    assert torch.equal(method.queue_KE, expected) and method.pointer.item() == 30 % 24
    twin = build("nnclr")
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin.queue_KE, method.queue_KE) and twin.pointer == method.pointer

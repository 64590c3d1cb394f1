"""What a run sets and reads on a CUDA device: settings of the back-ends, memory, and how far the host runs ahead."""

import dataclasses

import pytest
import torch
from tiny_runs import ALONE, config

from fastaugself import pretrain
from fastaugself.config.serialize import differences, to_dict
from fastaugself.distributed import World
from fastaugself.training import metrics
from fastaugself.training.run_ahead import RunAhead
from fastaugself.training.setup import backend_settings
from fastaugself.training.trainer import Trainer

CUDA = torch.device("cuda", 0)


def settings():
    return torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()


def test_the_settings_of_a_run_hold_inside_it_and_not_after_an_error(tmp_path):
    before = settings()
    chosen = config(None, tmp_path, cudnn_benchmark=True, matmul_precision="high")
    with pytest.raises(ZeroDivisionError), backend_settings(chosen, CUDA):
        assert settings() == (True, "high")
        raise ZeroDivisionError
    assert settings() == before
    with backend_settings(chosen, torch.device("cpu")):
        assert settings() == before
    with backend_settings(config(None, tmp_path), CUDA):
        assert settings() == (False, "highest")  # of PyTorch


def test_training_happens_inside_the_settings(beton, tmp_path, monkeypatch):
    """With the device's type exchanged where the settings are made: the run itself is on the CPU."""
    import fastaugself.pretraining as module

    seen, fit = [], Trainer.fit
    monkeypatch.setattr(module, "backend_settings", lambda c, device: backend_settings(c, CUDA))
    monkeypatch.setattr(Trainer, "fit", lambda self: (seen.append(settings()), fit(self))[1])
    before = settings()
    pretrain(config(beton, tmp_path / "run", max_steps=1, cudnn_benchmark=True, matmul_precision="medium"))
    assert seen == [(True, "medium")] and settings() == before


def test_a_run_resumes_with_another_choice_of_algorithms_and_not_with_another_precision(tmp_path):
    base = config(None, tmp_path)
    changed = dataclasses.replace(base, cudnn_benchmark=True)
    assert [*differences(to_dict(base), to_dict(changed))] == []
    changed = dataclasses.replace(base, matmul_precision="high")
    assert [option for option, *_ in differences(to_dict(base), to_dict(changed))] == ["matmul-precision"]


def test_the_memory_of_a_cuda_device_is_logged_and_none_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 29)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 << 30)
    assert metrics.device_memory(CUDA) == {"memory_gib": 1.5, "memory_reserved_gib": 2.0}
    assert metrics.memory(CUDA) == "1.5 GiB (2.0 reserved)"
    assert metrics.device_memory(torch.device("cpu")) == {}


class Device:
    """A simulated device that works only while it is waited for."""

    def __init__(self):
        self.enqueued, self.finished, self.most = 0, 0, 0

    def mark(self):
        self.enqueued += 1
        self.most = max(self.most, self.enqueued - self.finished)
        return Mark(self, self.enqueued)


class Mark:
    def __init__(self, device, step):
        self.device, self.step = device, step

    def synchronize(self):
        self.device.finished = max(self.device.finished, self.step)


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_host_waits_for_the_step_that_is_so_many_steps_back(monkeypatch, ahead):
    device, waited = Device(), []
    bound = RunAhead(CUDA, ahead)
    monkeypatch.setattr(bound, "_mark", device.mark)
    for step in range(1, 21):
        bound.step_done()
        waited.append(device.finished)
        assert device.enqueued == step
    assert device.most == ahead + 1
    assert waited == [max(0, step - ahead) for step in range(1, 21)]  # and no step more, or the device would idle


def test_the_bound_is_told_after_every_step_of_the_trainer(beton, tmp_path, monkeypatch):
    done = []
    trainer = Trainer(config(beton, tmp_path, max_steps=3), ALONE)
    try:
        monkeypatch.setattr(trainer._run_ahead, "step_done", lambda: done.append(trainer.global_step))
        for batch in trainer.batches():
            trainer.train_step(batch)
    finally:
        trainer.close()
    assert done == [1, 2, 3]


def test_a_cpu_is_never_waited_for():
    bound = RunAhead(World.single().device, 0)
    for _ in range(3):
        bound.step_done()
    assert not bound._marks

"""The first call in a process: what it imports, and that the operations survive a second import."""

import os
import re
import subprocess
import sys

import pytest
import torch

import fastaugself_kernels

CALLS = """
import sys, torch
from fastaugself_kernels import ViewPolicy, augment, infonce, sample_params
sizes = torch.tensor([[20, 30]] * 3)
params = sample_params(torch.arange(3), sizes, (ViewPolicy.moco_v2(16),) * 2, seed=0, epoch=0)
images = torch.full((3, 20, 30, 3), 200, dtype=torch.uint8)
views, shift = augment(images, None, sizes, params, size=16, blur_kernel=3, color_shift=True)
q = torch.ones(2, 4, requires_grad=True)
infonce(q, torch.ones(2, 4), torch.ones(5, 4), 0.2).sum().backward()
assert views.shape == (2, 3, 3, 16, 16) and q.grad.shape == (2, 4)
"""


def run(code, **options):
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, **options)


def test_the_first_call_does_not_import_the_compiler_of_torch():
    result = run(CALLS + 'print(*sorted({"torch._dynamo", "torch._inductor"} & set(sys.modules)))')
    assert result.returncode == 0 and result.stdout.strip() == "", result.stderr + result.stdout


def test_the_package_can_be_imported_a_second_time_and_reloaded():
    """By importlib under another name, as some test runners do, and in a notebook."""
    code = f"""
{CALLS}
import importlib, importlib.util, fastaugself_kernels
spec = importlib.util.spec_from_file_location("second", {fastaugself_kernels.__file__!r})
second = sys.modules["second"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(second)
assert second.augment is not augment
again = second.augment(images, None, sizes, params, size=16, blur_kernel=3)
assert torch.equal(again, views)
for name in ("_ops", "augment", "infonce"):
    module = sys.modules["fastaugself_kernels." + name]
    importlib.reload(module)
module = sys.modules["fastaugself_kernels.augment"]
assert torch.equal(module.augment(images, None, sizes, params, size=16, blur_kernel=3), views)
assert torch.equal(augment(images, None, sizes, params, size=16, blur_kernel=3), views)  # the one imported before
print("fine")
"""
    result = run(code)
    assert result.stdout.strip() == "fine", result.stderr


def test_an_operation_of_other_arguments_under_the_same_name_is_refused():
    from fastaugself_kernels._ops import register

    def other(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    with pytest.raises(RuntimeError, match="another version of fastaugself_kernels is loaded"):
        register("infonce", other, torch.empty_like)


def test_parameters_that_require_a_gradient_are_refused_where_one_would_be_missed():
    sizes, policies = torch.tensor([[9, 9]]), (fastaugself_kernels.ViewPolicy.none(8),)
    params = fastaugself_kernels.sample_params(torch.arange(1), sizes, policies, seed=0, epoch=0).requires_grad_()
    images = torch.full((1, 9, 9, 3), 255, dtype=torch.uint8)
    options = {"size": 8, "blur_kernel": 3, "mean": (0, 0, 0), "std": (1, 1, 1)}
    with pytest.raises(ValueError, match=r"pass params_VBP.detach\(\)"):
        fastaugself_kernels.augment(images, None, sizes, params, **options)
    with torch.no_grad():
        assert fastaugself_kernels.augment(images, None, sizes, params, **options).eq(1).all()


# --- compiling --------------------------------------------------------------------------------------------------------

KERNEL = """
from numba import njit

def make(sources, *, keep):
    @njit(cache=keep)
    def three(x):
        if sources < 0:
            return 0
        return x + 3

    return three
"""
USE = """
from fastaugself_kernels.numba.compiled import compiled
import kernel
get = compiled(kernel.make, "int64(int64)")
assert get()(4) == 7 and get() is get()
other = compiled(kernel.make, "int32(int32)")
assert other()(4) == 7
print(*(count for function in (get(), other()) for count in function.stats.cache_misses.values()))
"""


@pytest.fixture
def use(tmp_path):
    """Starts processes that compile a kernel of their own: call(cache folder) -> process."""
    pytest.importorskip("numba")
    (tmp_path / "kernel.py").write_text(KERNEL)

    def start(cache):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + USE
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-P", "-c", code], **pipes, text=True, env=environment)

    return start


def finish(process):
    """Returns (how often it compiled, the lines that it told)."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return sum(map(int, output.split())), errors.splitlines()


def test_a_kernel_is_compiled_once_for_a_machine_and_told_in_one_line(use, tmp_path):
    """Of processes that start at once, one compiles a kernel (another may compile the next); who finds them compiled
    says nothing."""
    cache = tmp_path / "cache"
    done = [finish(process) for process in [use(cache) for _ in range(3)]]
    assert sum(compiled for compiled, _ in done) == 2, done
    for compiled, lines in done:
        assert len(lines) == bool(compiled), done
        for line in lines:
            assert re.fullmatch(rf"compiling the CPU kernels, once for this machine: .*; kept in {cache}/\S+", line)
    assert finish(use(cache)) == (0, [])
    kept = sorted(path.suffix for path in cache.rglob("*") if path.is_file())
    assert kept == [".lock", ".nbc", ".nbc", ".nbi"]


def test_a_folder_that_cannot_be_written_to_is_told_with_the_remedy(use, tmp_path, monkeypatch):
    """Root may write anywhere: numba is told to look in no folder but one that is a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    compiled, (line,) = finish(use(tmp_path / "file"))
    assert compiled == 2
    assert line.startswith("compiling the CPU kernels, anew in every process") and "set NUMBA_CACHE_DIR to" in line


FORK = """
import os, signal, threading, time, warnings
from fastaugself_kernels import memory
from fastaugself_kernels.numba.compiled import compiled

warnings.simplefilter("ignore")  # Python's own on forks beside threads, which is what this is about
began, forked = threading.Event(), []

def slow(sources, *, keep):
    began.set()
    time.sleep(1)
    assert not forked
    import kernel
    return kernel.make(sources, keep=keep)

def hold():
    with memory._lock:
        compiled(slow, "int64(int64)")()

thread = threading.Thread(target=hold)
thread.start()
began.wait()
child = os.fork()
if not child:
    signal.alarm(60)
    import kernel
    import torch
    compiled(kernel.make, "int64(int64)")()
    memory.empty(1 << 20, dtype=torch.float32)
    os._exit(0)
forked.append(child)
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_while_a_thread_compiles_leaves_the_child_able_to(use, tmp_path):
    result = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + FORK, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_warming_up_compiles_all_that_the_first_batch_needs(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    command = "from fastaugself_kernels import warm_up; warm_up()"
    cold, warm = run(command), run(command)
    assert cold.returncode == warm.returncode == 0
    assert cold.stderr.count("\n") == 1 and f"kept in {tmp_path}" in cold.stderr
    assert warm.stderr == ""
    result = run(CALLS)
    assert result.returncode == 0 and result.stderr == ""

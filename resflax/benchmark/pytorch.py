"""Training steps in PyTorch, timed beside ours if PyTorch is installed."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resflax.benchmark.contender import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, Contender
from resflax.benchmark.pytorch_networks import torch_network
from resflax.kernels.threads import allowed_threads


def why_not_compiled() -> str | None:
    """Why torch.compile does not work here, in one line; None if it works.

    A tiny function is compiled, so that a missing C++ compiler or a version of Python that PyTorch
    does not support yet is found before any network.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled: Any = torch.compile(functional.softplus)
            compiled(torch.ones(64, device=device))
    except Exception as error:  # the backend's own classes, which differ between versions
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    finally:
        torch.compiler.reset()
    return None


def threads_of_xla() -> int:
    """Number of threads among which XLA divides an operation on CPUs, after its first one.

    They are counted where the system lists them. Elsewhere XLA has one for every processor.
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir():
        return os.cpu_count() or 1
    names = (thread / "comm" for thread in threads.iterdir())
    count = sum(name.read_text(encoding="utf-8").startswith("tf_XLAEigen") for name in names)
    return count or allowed_threads()


def torch_contender(case: Case, *, compiled: bool) -> Contender | None:
    """The case in PyTorch, or None if its network is not available there.

    Images are channels-last, bfloat16 means AMP, and with `compiled` the network is compiled by
    torch.compile. On CPUs, PyTorch then has as many threads as XLA.
    """
    net = torch_network(case.model, case.num_classes)
    if net is None:
        return None
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(threads_of_xla())
    placed: Any = net.to(device)
    net = placed.to(memory_format=torch.channels_last).train()
    forward: Callable[[Tensor], Any] = torch.compile(net) if compiled else net
    height, width, channels = case.image_shape
    images = torch.randn(case.batch_size, channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, case.num_classes, (case.batch_size,), device=device)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    half = case.precision == "bfloat16"

    def steps(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps(1)
    compile_seconds = time.perf_counter() - start
    return Contender(
        "torch.compile" if compiled else "torch",
        steps,
        compile_seconds,
        lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
    )

"""The processes that share a training: how they start, wait for each other, and stop together."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

import script


def start(threads: int) -> tuple[int, int, torch.device]:
    """Return rank, number of processes and device; a lone process needs no torchrun. threads: 0 shares the cores."""
    rank, world_size = script.rank()
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // local_size))
    if world_size > 1 and not dist.is_initialized():
        store, _, _ = next(rendezvous("env://"))
        # torchrun's store outlives its restarts: what a process that died has left there must not be read again
        attempt = dist.PrefixStore(f"attempt {restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if cuda else "gloo", store=attempt, rank=rank, world_size=world_size)
    return rank, world_size, device


def restarts() -> int:
    """Return how often torchrun has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def wait() -> None:
    """Wait until all processes are here; a lone process goes on."""
    if dist.is_initialized():
        dist.barrier()


def share_buffers(network: nn.Module) -> None:
    """Give all processes the running statistics of rank 0; each has its own."""
    if script.rank()[1] > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


class StopSignal:
    """Notes the first SIGTERM or Ctrl-C, so that a step is finished; a second Ctrl-C ends the process as usual."""

    def __init__(self) -> None:
        self.number = 0
        self.control: Any = None  # a group of CPU processes: the flag goes round without waiting for a GPU

    def __enter__(self) -> StopSignal:
        if script.rank()[1] > 1:
            self.control = dist.new_group(backend="gloo")
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def came(self) -> bool:
        """Tell whether any process has had a signal: all of them get the same answer after the same step."""
        if self.control is None:
            return self.number > 0
        flag = torch.tensor(self.number)
        dist.all_reduce(flag, dist.ReduceOp.MAX, self.control)
        self.number = int(flag)
        return self.number > 0

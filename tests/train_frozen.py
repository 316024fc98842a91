"""Trains every network without batch statistics, dropout and noise; what test_train.py starts with torchrun.

torchrun --nproc_per_node 2 tests/train_frozen.py RUNS SETTINGS...     (one run RUNS/<network> for each network)
"""

import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch.distributed as dist
from narrow import NARROW
from torch import nn

import evaluate
import models
import plots
import train

build = models.build


def frozen(name, *arguments, **more):
    network = build(name, *arguments, **NARROW.get(name, {}) | more)
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout1d):
            module.p = 0.0
        if hasattr(module, "blur"):  # noise that each process would draw for its own rows
            module.blur = 0.0
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.running_var.fill_(4.0)  # with 1, a block of inception1d doubles the signal, and rounding with it
            module.train = types.MethodType(lambda self, mode=True: self, module)
    return network


if __name__ == "__main__":
    models.build = frozen
    evaluate.evaluate_run = plots.save_curves = lambda *_: None  # only the losses are looked at
    destroy, dist.destroy_process_group = dist.destroy_process_group, lambda: None  # one group for all networks
    runs, *words = sys.argv[1:]
    for name in models.NETWORKS:
        train.main([*words, "--model.name", name, "--run", f"{runs}/{name}"])
    if dist.is_initialized():
        destroy()

"""Show what learning without labels first is worth: on PTB-XL, or on a part of it.

    python benchmarks/pretraining.py --raw ~/data/ptb-xl

Each network learns once from all recordings of folds 1 to 7 without their labels: ecg_transformer and heartbeit fill in
what is hidden, a one-directional s4 tells what comes next. Then it learns the superclasses in three ways, with each
seed: from scratch; frozen, so that the last layer alone learns; and fine-tuned, all layers, from what the frozen one
has become (Kumar et al. 2022, arXiv:2202.10054). That is done with the labels of fold 1 and with those of all seven.
Fold 8 chooses the epoch; printed is the macro AUROC on fold 9: mean and range over the seeds. Finished runs below
--work are not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import preprocess
import runs
import script
from benchmarks import machine
from benchmarks.ptbxl import CONFIG, auroc, finish
from evaluate import open_run, score_split

# Objective and arguments of each network; s4 is narrower than published, so that a CPU can train it.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ecg_transformer": ("masked", {}),
    "heartbeit": ("masked", {}),
    "s4": ("contrastive", {"width": 128, "bidirectional": False}),
}
LABELLED = {"fold 1": ["1"], "folds 1-7": [str(fold) for fold in range(1, 8)]}
# How often the epochs are taken, and settings. The frozen features hardly differ from row to row, and a single layer on
# them asks for large steps.
WAYS: dict[str, tuple[int, list[str]]] = {
    "scratch": (3, ["--training.learning_rate", "0.001"]),  # as often as both of the others together
    "frozen": (2, ["--training.learning_rate", "0.3", "--training.ema_decay", "0", "--training.freeze", "true"]),
    "fine-tuned": (1, ["--training.learning_rate", "0.001", "--training.layer_decay", "0.8"]),
}


def learn(name: str, options: argparse.Namespace, base: list[str]) -> Path:
    """Let a network learn without labels, where that is not done yet; returns the run."""
    objective = NETWORKS[name][0]
    run: Path = options.work / f"{name}-{objective}"
    finish(run, [*base, *model_words(name), "--data.train", json.dumps(LABELLED["folds 1-7"]),
                 "--training.objective", objective, "--training.epochs", str(options.epochs[0]),
                 "--training.learning_rate", "0.001"])  # fmt: skip
    return run


def model_words(name: str) -> list[str]:
    return ["--model.name", name, "--model.arguments", json.dumps(NETWORKS[name][1])]


def scores_by_labels(
    name: str, labelled: str, way: str, pretrained: Path, base: list[str], options: argparse.Namespace
) -> list[float]:
    """Return the macro AUROC on fold 9, for each seed, of a network that learns the labels of some folds in one way."""
    of_way, more = WAYS[way]
    times = of_way * (3 if len(LABELLED[labelled]) == 1 else 1)
    words = [*base, *model_words(name), *more, "--data.train", json.dumps(LABELLED[labelled]),
             "--training.epochs", str(times * options.epochs[1]), "--training.validate_every", str(times)]  # fmt: skip
    scores = []
    for seed in range(options.seeds):
        stem = str(options.work / f"{name}-{labelled.replace(' ', '')}")
        start = {"scratch": None, "frozen": pretrained, "fine-tuned": f"{stem}-frozen-{seed}"}[way]
        folder = Path(f"{stem}-{way}-{seed}")
        beginning = ["--model.pretrained", str(start)] if start else []
        finish(folder, [*words, *beginning, "--training.seed", str(seed)])
        settings = runs.settings_of(folder)
        best, dataset, rows = open_run(folder, settings)
        scored = score_split(best, dataset, rows, settings)[1]
        support = dataset.labels[rows].sum(axis=0, dtype=int)
        scores.append(auroc(dataset, rows, scored, (support > 0) & (support < len(rows))))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of PTB-XL, or of a part of it")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument(
        "--labelled", nargs="*", choices=LABELLED, default=list(LABELLED), help="whose labels are known"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings by labels of each kind")
    parser.add_argument("--epochs", type=int, nargs=2, default=(30, 8), metavar=("WITHOUT", "WITH"),
                        help="without labels, and with those of seven folds; of one fold thrice")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining"), help="for the dataset and the runs")
    options = parser.parse_args()
    prepared = options.work / "prepared"
    base = ["--config", CONFIG, "--data.raw", str(options.raw), "--data.dir", str(prepared)]
    base += ["--data.validation", "8", "--data.test", "9"]
    preprocess.main([*base, "--data.train", json.dumps(LABELLED["folds 1-7"])])
    print(machine.describe())
    lines = [f"{'macro AUROC on fold 9':22}{'labels of':12}" + "".join(f"{way:>26}" for way in WAYS)]
    for name in options.networks:
        pretrained = learn(name, options, base)
        for labelled in options.labelled:
            cells = []
            for way in WAYS:
                scores = scores_by_labels(name, labelled, way, pretrained, base, options)
                cells.append(f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})")
            lines.append(f"{name:22}{labelled:12}" + "".join(f"{cell:>26}" for cell in cells))
            print(lines[-1], flush=True)
    print("", *lines, sep="\n")


if __name__ == "__main__":
    script.run(main)

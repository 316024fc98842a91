"""Show what learning without labels first is worth: on PTB-XL, or on a part of it.

    python benchmarks/pretraining.py --raw ~/data/ptb-xl

Each network learns once from all recordings of folds 1 to 7 without their labels: ecg_transformer and heartbeit fill in
what is hidden, a one-directional s4 tells what comes next. Then it learns the superclasses in three ways, with each
seed: from scratch, from the pre-trained weights, and with these frozen, so that the last layer alone learns. That is
done with the labels of fold 1 and with those of all seven. Fold 8 chooses the epoch; printed is the macro AUROC on fold
9: mean and range over the seeds. Finished runs below --work are not trained again.
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
from data import Dataset
from evaluate import open_run, score_split

# Objective and arguments of each network; s4 is narrower than published, so that a CPU can train it.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ecg_transformer": ("masked", {}),
    "heartbeit": ("masked", {}),
    "s4": ("contrastive", {"width": 128, "bidirectional": False}),
}
LABELLED = {"fold 1": ["1"], "folds 1-7": [str(fold) for fold in range(1, 8)]}
WAYS: dict[str, list[str]] = {
    "scratch": ["--training.learning_rate", "0.001"],
    "frozen": ["--training.learning_rate", "0.01", "--training.freeze", "true"],
    "fine-tuned": ["--training.learning_rate", "0.001", "--training.layer_decay", "0.8"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of PTB-XL, or of a part of it")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument(
        "--labelled", nargs="*", choices=LABELLED, default=list(LABELLED), help="whose labels are known"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings by labels of each kind")
    parser.add_argument("--epochs", type=int, nargs=2, default=(60, 10), metavar=("WITHOUT", "WITH"),
                        help="without labels, and with those of seven folds (one fold: thrice)")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining"), help="for the dataset and the runs")
    options = parser.parse_args()
    without, with_labels = options.epochs
    prepared = options.work / "prepared"
    base = ["--config", CONFIG, "--data.raw", str(options.raw), "--data.dir", str(prepared)]
    base += ["--data.validation", "8", "--data.test", "9"]
    preprocess.main([*base, "--data.train", json.dumps(LABELLED["folds 1-7"])])
    dataset = Dataset(prepared)
    print(machine.describe())
    for name in options.networks:
        objective, arguments = NETWORKS[name]
        words = [*base, "--model.name", name, "--model.arguments", json.dumps(arguments)]
        pretrained = options.work / f"{name}-{objective}"
        finish(pretrained, [*words, "--data.train", json.dumps(LABELLED["folds 1-7"]),
                            "--training.objective", objective, "--training.epochs", str(without),
                            "--training.learning_rate", "0.001"])  # fmt: skip
        for labelled in options.labelled:
            more_often = 3 if len(LABELLED[labelled]) == 1 else 1
            of_labels = [*words, "--data.train", json.dumps(LABELLED[labelled]),
                         "--training.epochs", str(more_often * with_labels),
                         "--training.validate_every", str(more_often)]  # fmt: skip
            for way, more in WAYS.items():
                start = [] if way == "scratch" else ["--model.pretrained", str(pretrained)]
                scores = []
                for seed in range(options.seeds):
                    folder = options.work / f"{name}-{labelled.replace(' ', '')}-{way}-{seed}"
                    finish(folder, [*of_labels, *start, *more, "--training.seed", str(seed)])
                    settings = runs.settings_of(folder)
                    best, _, rows = open_run(folder, settings)
                    scored = score_split(best, dataset, rows, settings)[1]
                    scores.append(auroc(dataset, rows, scored, np.ones(len(dataset.classes), bool)))
                spread = f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"
                print(f"RESULT {name:16} {labelled:10} {way:11} {spread}", flush=True)


if __name__ == "__main__":
    script.run(main)

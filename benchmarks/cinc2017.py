"""Cross-validate the classifier of rhythm strips: every recording is scored by a network that never saw it.

    python benchmarks/cinc2017.py --raw FOLDER                     # configs/cinc2017.yaml, five trainings

Each training learns from four of the five folds, by the settings that the final one has, and scores the fifth: nothing
is chosen on any of them. Printed is the challenge's score, the mean F1 of N, A and O, with a 95 % interval over
recordings. A network that is no more than a part of the configuration's, e.g. `--model.name resnet1d`, can be compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import evaluate
import preprocess
import runs
import script
from benchmarks import machine
from benchmarks.ptbxl import finish
from challenge import RANKED_2017, score_2017
from data import Dataset
from decide import decide
from intervals import intervals_of
from metrics import scores_of

CONFIG = ["--config", str(Path(__file__).resolve().parent.parent / "configs/cinc2017.yaml")]
FOLDS = ("0", "1", "2", "3", "4")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of the challenge's recordings")
    parser.add_argument("--work", type=Path, default=Path("runs/cinc2017-cv"), help="for the dataset and the runs")
    options, words = parser.parse_known_args()
    prepared = options.work / "prepared"
    preprocess.main([*CONFIG, "--data.raw", str(options.raw), "--data.dir", str(prepared)])
    dataset = Dataset(prepared)
    of_folds = []
    for held_out in FOLDS:
        folder = options.work / f"fold{held_out}"
        learnt = ",".join(fold for fold in FOLDS if fold != held_out)
        folds = ["--data.train", learnt, "--data.test", held_out]
        finish(folder, [*CONFIG, *words, "--data.dir", str(prepared), *folds])
        trained, _, rows = evaluate.open_run(folder, runs.settings_of(folder))
        of_folds.append(evaluate.score_split(trained, dataset, rows, runs.settings_of(folder)))
    rows, scores = (np.concatenate(parts) for parts in zip(*of_folds, strict=True))
    targets, decided = dataset.labels[rows], decide(scores, dataset.task)
    ranked = [dataset.classes.index(name) for name in RANKED_2017]
    low, high = intervals_of(targets, scores, decided, dataset.patient[rows], ranked)["macro_f1"]
    report = scores_of(targets, scores, dataset.classes, dataset.task, scored=RANKED_2017)
    print(machine.describe())
    print(f"{len(rows):,} recordings, {' '.join(words) or 'by configs/cinc2017.yaml'}")
    print(f"mean F1 of N, A, O: {score_2017(targets, decided, dataset.classes):.3f} [{low:.3f}, {high:.3f}]")
    print("F1 " + ", ".join(f"{each.name} {each.f1:.3f}" for each in report.per_class))


if __name__ == "__main__":
    script.run(main)

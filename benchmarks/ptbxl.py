"""Compare the networks for records on PTB-XL with the same budget, beside a logistic regression on simple features.

    python benchmarks/ptbxl.py --raw ~/data/ptb-xl
    python benchmarks/ptbxl.py --raw ~/data/ptb-xl --target form --networks resnet1d --seeds 1

Folds 1 to 8 are learnt from, and fold 9 chooses the epoch. Each network is trained by configs/ptbxl.yaml for the same
number of epochs, with each seed. Printed is the macro AUROC on fold 9, and on fold 10 where it is there: mean and range
over the seeds, and a 95 % interval of the first seed's over patients (bootstrap, drawn again where a class is missing).
Finished runs below --work are not trained again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bundle
import evaluate
import pqrst
import preprocess
import runs
import script
import train
from benchmarks import machine
from benchmarks.train import OF_RECORDS
from config import Settings
from data import Dataset
from decide import decide
from folds import Rows
from intervals import intervals_of

CONFIG = str(Path(__file__).resolve().parent.parent / "configs/ptbxl.yaml")
LEAST_POSITIVES = 5  # of a class on each side; rarer ones are left out of the mean


def features(signal: NDArray[Any], fs: float) -> NDArray[np.float64]:
    """Return simple numbers of one row (L, T): size, quantiles, steepness and bands of each lead, and the rhythm."""
    x = signal.astype(np.float64)
    power = np.abs(np.fft.rfft(x, axis=1)) ** 2
    hz = np.fft.rfftfreq(x.shape[1], 1 / fs)
    edges = ((0.3, 2), (2, 5), (5, 10), (10, 20), (20, 45))
    bands = [np.log(power[:, (hz >= low) & (hz < high)].sum(axis=1) + 1e-9) for low, high in edges]
    of_leads = [x.mean(1), x.std(1), *np.percentile(x, (1, 5, 25, 50, 75, 95, 99), axis=1), np.abs(np.diff(x)).mean(1)]
    rr = np.diff(pqrst.rpeaks(x, fs)) / fs
    rhythm = [np.median(rr), rr.std(), np.abs(np.diff(rr)).mean()] if len(rr) > 2 else [1.0, 0.0, 0.0]
    return np.concatenate([*of_leads, *bands, rhythm])


def regression(dataset: Dataset, rows: dict[str, Rows]) -> dict[str, NDArray[np.float64]]:
    """Return the scores (N, K) of a logistic regression for each split but the training one."""
    table = np.stack([features(dataset.signals(np.array([row]))[0], dataset.recipe.fs) for row in range(len(dataset))])
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.03, max_iter=2000)))
    model.fit(table[rows["train"]], dataset.labels[rows["train"]])
    return {name: model.predict_proba(table[of]) for name, of in rows.items() if name != "train" and len(of)}


def settings_for(options: argparse.Namespace, prepared: Path, has_test: bool) -> list[str]:
    words = ["--config", CONFIG, "--data.raw", str(options.raw), "--data.dir", str(prepared)]
    words += ["--data.target", options.target, "--training.metric", "macro_auroc", "--training.patience", "0"]
    words += ["--training.epochs", str(options.epochs)] if options.epochs else []
    return words if has_test else [*words, "--data.test", "[]"]


def finish(folder: Path, words: list[str]) -> None:
    """Train the run of a folder, or go on with it, where it is not finished yet."""
    if not bundle.is_finished(folder / runs.LAST):
        resume = ["--resume"] if (folder / runs.CONFIG).exists() else []
        train.main([*words, "--run_dir", str(folder), *resume])


def trained(name: str, seed: int, words: list[str], folder: Path) -> tuple[Settings, float]:
    """Train a network where that is not done yet; returns its settings and the seconds that it took."""
    started = time.perf_counter()
    finish(folder, [*words, "--model.name", name, "--training.seed", str(seed)])
    return runs.settings_of(folder), time.perf_counter() - started


def auroc(dataset: Dataset, rows: Rows, scores: NDArray[Any], counted: NDArray[np.bool_]) -> float:
    return float(roc_auc_score(dataset.labels[rows][:, counted], scores[:, counted], average="macro"))


def interval(dataset: Dataset, rows: Rows, scores: NDArray[Any], counted: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the 95 % interval of the macro AUROC over patients."""
    targets, columns = dataset.labels[rows], np.flatnonzero(counted).tolist()
    return intervals_of(targets, scores, decide(scores, "multilabel"), dataset.patient[rows], columns)["macro_auroc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of PTB-XL, or of a part of it")
    parser.add_argument("--target", default="superdiagnostic", help="labels, as preprocess.py has them")
    parser.add_argument("--networks", nargs="*", choices=OF_RECORDS, default=OF_RECORDS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--epochs", type=int, help="of each training; those of the configuration where not given")
    parser.add_argument("--work", type=Path, default=Path("runs/ptbxl-table"), help="for the dataset and the runs")
    options = parser.parse_args()
    prepared = options.work / options.target
    preprocess.main(["--config", CONFIG, "--data.raw", str(options.raw), "--data.dir", str(prepared),
                     "--data.target", options.target])  # fmt: skip
    dataset = Dataset(prepared)
    has_test = bool((dataset.fold == b"10").any())
    learnt = [str(fold) for fold in range(1, 9)]
    rows = dataset.splits(learnt, ["9"], ["10"] if has_test else [])
    support = np.stack([dataset.labels[of].sum(axis=0, dtype=int) for of in rows.values() if len(of)])
    counted = np.atleast_1d((support >= LEAST_POSITIVES).all(axis=0))  # (K,)
    splits = {"validation": "fold 9", **({"test": "fold 10"} if has_test else {})}
    print(machine.describe())
    print(
        f"PTB-XL, {options.target}: {len(rows['train']):,} recordings to learn from, {counted.sum()} of {len(counted)} "
        f"classes with {LEAST_POSITIVES} or more positives in each fold"
    )
    lines: dict[str, dict[str, list[NDArray[Any]]]] = {"logistic regression": {}}
    lines["logistic regression"] = {split: [scores] for split, scores in regression(dataset, rows).items()}
    minutes: dict[str, float] = {}
    for name in options.networks:
        lines[name] = {split: [] for split in splits}
        for seed in range(options.seeds):
            folder = options.work / f"{options.target}-{name}-{seed}"
            settings, seconds = trained(name, seed, settings_for(options, prepared, has_test), folder)
            minutes.setdefault(name, seconds / 60)
            for split in splits:
                evaluation = settings.evaluation.model_copy(update={"split": split})
                settings = settings.model_copy(update={"evaluation": evaluation})
                best, _, of = evaluate.open_run(folder, settings)
                lines[name][split].append(evaluate.score_split(best, dataset, of, settings)[1])
    print(f"\n{'macro AUROC':22}" + "".join(f"{title:>42}" for title in splits.values()) + f"{'minutes':>10}")
    for name, of_splits in lines.items():
        cells = []
        for split in splits:
            values = [auroc(dataset, rows[split], scores, counted) for scores in of_splits[split]]
            low, high = interval(dataset, rows[split], of_splits[split][0], counted)
            spread = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            cells.append(f"{spread}  [{low:.3f}, {high:.3f}]")
        print(f"{name:22}" + "".join(f"{cell:>42}" for cell in cells) + f"{minutes.get(name, 0):10.1f}")


if __name__ == "__main__":
    script.run(main)

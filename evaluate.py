"""Run folder -> report.

    python evaluate.py                       # the demo's run, runs/demo
    python evaluate.py runs/mitdb
    python evaluate.py runs/mitdb --evaluation.split validation --evaluation.checkpoint last

Writes runs/<name>/report/: metrics.json, per_class.csv, report.md, confusion.png, roc.png, pr.png, calibration.png,
f1.png, predictions.csv. Every row of the split is scored, by the recipe and thresholds of the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

import config
import data
import metrics
import plots
import runs
from config import Settings, Stop
from data import Batches, Prepared, Rows


def score_split(run: Path, settings: Settings) -> tuple[Prepared, Rows, NDArray[np.float32], dict[str, Any]]:
    """The dataset, the rows of the split, their scores (N, K), and the checkpoint that gave them."""
    checkpoint = runs.load_checkpoint(run / f"{settings.evaluation.checkpoint}.pt")
    dataset = Prepared(settings.data_dir)
    if changes := config.differences(checkpoint["recipe"], dataset.recipe):
        raise Stop(f"{dataset.folder} was prepared with another recipe than {run} ({'; '.join(changes)})")
    if checkpoint["classes"] != dataset.classes:
        raise Stop(f"{run} knows classes {checkpoint['classes']}, {dataset.folder} has {dataset.classes}")
    rows = data.splits(dataset, settings.data)[settings.evaluation.split]
    network = runs.network_of(checkpoint)
    batches = list(data.scoring_batches(rows, settings.evaluation.batch_size, 0, 1))
    bar = tqdm(batches, settings.evaluation.split, unit=" batches", disable=None, leave=False)
    logits = np.concatenate([runs.logits_of(network, Batches(dataset)[batch]) for batch in bar])
    return dataset, rows, runs.scores_from(logits, dataset.task), checkpoint


def predictions(dataset: Prepared, rows: Rows, scores: NDArray[np.float32], decided: NDArray[np.uint8]) -> pd.DataFrame:
    """One line per row: where it comes from, what it is, what was decided, the score of each class."""

    def names(labels: NDArray[np.uint8]) -> list[str]:
        return ["+".join(np.array(dataset.classes)[row.astype(bool)]) or "-" for row in labels]

    table = pd.DataFrame(
        {
            "record": dataset.record[rows].astype(str),
            "patient": dataset.patient[rows].astype(str),
            "start": dataset.start[rows],
            "target": names(dataset.labels[rows]),
            "decided": names(decided),
        }
    )
    for k, name in enumerate(dataset.classes):
        table[f"score_{name}"] = scores[:, k]
    return table


def evaluate_run(run: Path, settings: Settings) -> dict[str, Any]:
    """Score a split of the run's dataset, write the report, print it; returns the scores."""
    dataset, rows, scores, checkpoint = score_split(run, settings)
    target = dataset.labels[rows]
    thresholds = checkpoint["thresholds"] if dataset.task == "multilabel" else None
    report = metrics.scores_of(
        target, scores, dataset.classes, dataset.task, thresholds, settings.training.macro_classes or None
    )
    decided = metrics.decide(scores, dataset.task, thresholds)
    origin = {
        "run": str(run),
        "checkpoint": settings.evaluation.checkpoint,
        "epoch": checkpoint["epoch"] + 1,
        "dataset": str(dataset.folder),
        "split": settings.evaluation.split,
        "folds": getattr(settings.data, settings.evaluation.split),
        "patients": len(np.unique(dataset.patient[rows])),
        "leak": dataset.meta["leak"],
        "commit": checkpoint["commit"],
    }
    head = (
        f"# {run}: {settings.evaluation.split} rows\n\n"
        f"{checkpoint['model_name']}, {origin['checkpoint']} checkpoint of epoch {origin['epoch']}, on folds "
        f"{', '.join(origin['folds'])} of {dataset.folder}: {len(rows):,} rows of {origin['patients']:,} patients.\n\n"
    )
    if origin["leak"]:
        head += f"**LEAK: {origin['leak']}.**\n\n"
    text = head + metrics.report_markdown(report)

    folder = run / "report"
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({**origin, **report}, indent=1))
    (folder / "report.md").write_text(text)
    pd.DataFrame(report["per_class"]).to_csv(folder / "per_class.csv", index=False)
    predictions(dataset, rows, scores, decided).to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    plots.save_confusion(report, folder / "confusion.png")
    plots.save_f1(report, folder / "f1.png")
    for name, draw in (("roc", plots.save_roc), ("pr", plots.save_pr), ("calibration", plots.save_calibration)):
        draw(target, scores, dataset.classes, folder / f"{name}.png")
    print(text)
    print(f"report in {folder}", file=sys.stderr)
    return {**origin, **report}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/demo"), help="a run of train.py")
    settings, arguments = config.load(parser, argv, base=lambda given: given.folder / "config.yaml")
    evaluate_run(arguments.folder, settings)


if __name__ == "__main__":
    config.script(main)

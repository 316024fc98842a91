"""Run folder -> report.

    python evaluate.py                       # the demo's run, runs/demo
    python evaluate.py runs/mitdb
    python evaluate.py runs/mitdb --evaluation.split validation --evaluation.checkpoint last
    python evaluate.py runs/a runs/b         # the same rows scored by two runs: compare.py
    python evaluate.py runs/a runs/b runs/c --ensemble     # the mean of their scores: ensemble.py
    python evaluate.py runs/mitdb --explain 5     # also what counts for each class, by five rows of each: importance.py
    python evaluate.py runs/mitdb --robustness    # the same rows with noise, a lead off, another gain: robustness.py
    python evaluate.py runs/ptbxl-leads --leads   # the same rows with 6, 3, 2 and 1 of their leads: leadsets.py
    python evaluate.py runs/mitdb --data.name svdb --data.raw ~/data/svdb --evaluation.r_peaks detected

Writes runs/<name>/report/, for another split than test runs/<name>/report-<split>/, whole or not at all: metrics.json,
per_class.csv, report.md, model_card.md, confusion.png, roc.png, pr.png, calibration.png, coverage.png, f1.png,
predictions.csv and, where age, sex, device or site of enough rows are known, groups.csv; with --explain importance.csv
and importance.png. Every row of the split is
scored, by the recipe and thresholds of the checkpoint; windows of one record count as one, unless --evaluation.windows
true asks for each.

With --data.raw on the command line other recordings are scored, all of them, as infer.py predicts them (external.py);
the report is then in runs/<name>/report-<data.name>/, of beats found by infer.py in report-<data.name>-detected/.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

import bundle
import challenge
import config
import groups
import importance
import metrics
import plots
import risk
import runs
import script
from batches import Batches, scoring_batches
from bundle import Bundle
from card import model_card
from config import Settings
from data import Dataset
from decide import decide
from folds import Rows
from intervals import intervals_of
from metrics import Report
from risk import Coverage
from script import Stop


def open_run(run: Path, settings: Settings) -> tuple[Bundle, Dataset, Rows]:
    """Open the trained network, its dataset and the rows of the split; Stop where they do not belong together."""
    trained = bundle.load(run / f"{settings.evaluation.checkpoint}.pt")
    dataset = Dataset(*settings.data_dirs)
    if changes := trained.recipe.differences(dataset.recipe):
        raise Stop(f"{dataset.folder} was prepared with another recipe than {run} ({'; '.join(changes)})")
    if trained.classes != dataset.classes:
        raise Stop(
            f"{run} knows classes {', '.join(trained.classes)}, {dataset.folder} has {', '.join(dataset.classes)}"
        )
    has_changed = not trained.origin.had_folds(dataset.digest_of_folds)
    if has_changed and runs.settings_of(run).data_dirs == settings.data_dirs:  # it may be scored on another dataset
        raise Stop(
            f"{dataset.folder} has other patients in its folds than when {run} was trained, which may know those that "
            "are scored; prepare it as before, or train again"
        )
    return trained, dataset, rows_of(dataset, settings)


def rows_of(dataset: Dataset, settings: Settings) -> Rows:
    """Return the rows of the split that is scored."""
    split = settings.evaluation.split
    return dataset.splits(settings.data.train, settings.data.validation, settings.data.test, needed=[split])[split]


def score_split(trained: Bundle, dataset: Dataset, rows: Rows, settings: Settings) -> tuple[Rows, NDArray[np.float32]]:
    """Return what was scored, each unit by its first row (U,), and the scores (U, K)."""
    batches, shares = Batches(dataset), list(scoring_batches(rows, settings.evaluation.batch_size))
    bar = tqdm(shares, settings.evaluation.split, unit=" batches", disable=None, leave=False)
    _, logits = bundle.score(trained, (batches[share] for share in bar))
    units = rows if settings.evaluation.windows else dataset.units(rows)
    first, scores = bundle.pool(logits, units, dataset.inside(rows), dataset.task)
    return rows[first], scores


def table_of(dataset: Dataset, rows: Rows, scores: NDArray[np.float32], decided: NDArray[np.uint8]) -> pd.DataFrame:
    """Return a line per scored row: where it comes from, what it is, what was decided, the score of each class."""

    def names(labels: NDArray[np.uint8]) -> list[str]:
        return [script.cell("+".join(np.array(dataset.classes)[row.astype(bool)]) or "-") for row in labels]

    table = pd.DataFrame(
        {
            "record": [script.cell(name) for name in dataset.record[rows].astype(str)],
            "patient": [script.cell(name) for name in dataset.patient[rows].astype(str)],
            "start": dataset.start[rows],
            "target": names(dataset.labels[rows]),
            "decided": names(decided),
        }
    )
    for k, name in enumerate(dataset.classes):
        table[f"score_{name}"] = scores[:, k]
    return table


@dataclass(frozen=True)
class Judged:
    """Scored rows of a split, and what their scores are worth."""

    dataset: Dataset
    rows: Rows  # (U,) the first row of each unit
    scores: NDArray[np.float32]  # (U, K)
    decided: NDArray[np.uint8]  # (U, K)
    report: Report
    between: dict[str, tuple[float, float]]  # 95 % intervals of the macro scores
    ranked: dict[str, float]  # by the weights of the challenges, where they are given
    settings: Settings

    @cached_property
    def curves(self) -> tuple[Coverage, Coverage]:
        """Coverage against risk, and the best that any order of the rows gives."""
        wrong = (self.dataset.labels[self.rows] != self.decided).any(axis=1)  # (U, K) -> (U,): as accuracy counts
        certain = risk.certainty(self.scores, self.dataset.task, self.report.thresholds)
        return risk.coverage_curve(wrong, certain), risk.best_curve(wrong)

    @cached_property
    def by_group(self) -> pd.DataFrame:
        """A line per group of people or places; none where nothing is known of them."""
        return scores_by_group(self.dataset, self.rows, self.scores, self.report, self.settings)

    @property
    def place(self) -> dict[str, Any]:
        """Return where the rows are from, as metrics.json tells it."""
        dataset = self.dataset
        return {
            "dataset": str(dataset.folder), "patients": dataset.n_patients(self.rows), "leak": dataset.summary.leak
        }  # fmt: skip

    def tree(self) -> dict[str, Any]:
        """Return all scores as metrics.json holds them."""
        more = {"intervals": self.between, "challenge": self.ranked, "abstention": risk.tree(*self.curves)}
        return {**self.report.tree(), **more}

    def text(self) -> str:
        """Return all scores as report.md holds them, under the warning of what leaks."""
        sections = [
            challenge.as_text(self.ranked) + metrics.report_markdown(self.report, self.between),
            risk.as_text(risk.tree(*self.curves)),
            *([groups.as_text(self.by_group)] if len(self.by_group) else []),
        ]
        return self.dataset.summary.warning + "\n".join(sections)


def judge(
    dataset: Dataset,
    rows: Rows,
    scores: NDArray[np.float32],
    thresholds: tuple[float, ...] | None,
    settings: Settings,
) -> Judged:
    """Return what scores (U, K) of rows (U,) are worth; thresholds (K,), or None where the highest score decides."""
    target, task, classes = dataset.labels[rows], dataset.task, dataset.classes
    report = metrics.scores_of(target, scores, classes, task, thresholds, settings.data.scored_classes)
    decided = decide(scores, task, thresholds)
    columns = [classes.index(name) for name in report.scored_classes]
    between = intervals_of(target, scores, decided, dataset.patient[rows], columns)
    ranked = challenge.challenge_scores(target, decided, classes, settings.evaluation.challenge)
    return Judged(dataset, rows, scores, decided, report, between, ranked, settings)


def scores_by_group(
    dataset: Dataset, rows: Rows, scores: NDArray[np.float32], report: Report, settings: Settings
) -> pd.DataFrame:
    """Return a line per group of people or places, see groups.py; none where nothing is known of them."""
    known = groups.known_of(settings.data_dirs, dataset.record[rows].astype(str).tolist())
    if known is None:
        return pd.DataFrame()
    answers = groups.Answers(
        dataset.labels[rows], scores, dataset.patient[rows], dataset.classes, dataset.task, report.thresholds,
        report.scored_classes,
    )  # fmt: skip
    return groups.score_groups(known, answers)


def write_report(folder: Path, judged: Judged, tree: dict[str, Any], text: str) -> None:
    """Write into a folder what reports have in common: tree is metrics.json, text is report.md."""
    dataset, rows, scores, report = judged.dataset, judged.rows, judged.scores, judged.report
    (folder / "metrics.json").write_text(json.dumps(tree, indent=1))
    (folder / "report.md").write_text(text)
    per_class = [{**each.tree(), "name": script.cell(each.name)} for each in report.per_class]
    pd.DataFrame(per_class).to_csv(folder / "per_class.csv", index=False)
    predictions = table_of(dataset, rows, scores, judged.decided)
    predictions.to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    if len(judged.by_group):
        names = judged.by_group["group"].map(script.cell)
        judged.by_group.assign(group=names).to_csv(folder / "groups.csv", index=False, float_format="%.6g")
    plots.save_coverage(*judged.curves, folder / "coverage.png")
    plots.save_confusion(report, folder / "confusion.png")
    plots.save_f1(report, folder / "f1.png")
    for name, draw in (("roc", plots.save_roc), ("pr", plots.save_pr), ("calibration", plots.save_calibration)):
        draw(dataset.labels[rows], scores, dataset.classes, folder / f"{name}.png")


def what_counts_of(
    trained: Bundle, dataset: Dataset, rows: Rows, scores: NDArray[np.float32], n: int
) -> tuple[pd.DataFrame | None, str]:
    """Return the table of what counts for each class, by n rows of each, and its section of the report."""
    if not n:
        return None, ""
    found, alike = importance.explain_rows(trained, dataset, rows, scores, n)
    table = importance.table_of(found)
    return table, "\n" + importance.as_text(table, found, alike)


def evaluate_run(run: Path, settings: Settings, n_explained: int = 0) -> Report:
    """Score a split of the run's dataset, explain so many rows of each class, write the report and print it."""
    trained, dataset, rows = open_run(run, settings)
    n_rows, patients = len(rows), dataset.patients(rows)
    rows, scores = score_split(trained, dataset, rows, settings)
    judged = judge(dataset, rows, scores, trained.thresholds, settings)
    explained, what_counts = what_counts_of(trained, dataset, rows, scores, n_explained)
    split, checkpoint = settings.evaluation.split, settings.evaluation.checkpoint
    folds = list(getattr(settings.data, split))
    tree = {
        "run": str(run),
        "checkpoint": checkpoint,
        "epoch": trained.origin.epoch,
        "split": split,
        "folds": folds,
        "commit": trained.origin.commit,
        **judged.place,
        **judged.tree(),
    }
    pooled = f", the windows of each of {len(rows):,} records pooled" if len(rows) < n_rows else ""
    text = (
        f"# {run}: {split} rows\n\n"
        f"{trained.name}, {checkpoint} checkpoint of epoch {trained.origin.epoch}, on folds "
        f"{', '.join(folds)} of {dataset.folder}: {n_rows:,} rows, {patients}{pooled}.\n\n"
        f"{judged.text()}{what_counts}"
    )
    place = run / (runs.REPORT if split == "test" else f"{runs.REPORT}-{split}")
    with script.folder_aside(place) as folder:
        write_report(folder, judged, tree, text)
        card = model_card(trained, dataset, settings, judged.report, judged.between, patients)
        (folder / "model_card.md").write_text(card)
        if explained is not None:
            importance.draw(explained, folder / "importance.png")
            explained["class"] = explained["class"].map(script.cell)
            explained.to_csv(folder / "importance.csv", index=False, float_format="%.6g")
    print(text)
    print(f"report in {place}", file=sys.stderr)
    return judged.report


def scores_others(words: Sequence[str]) -> bool:
    """Tell whether the command line asks for other recordings; the run's own settings hold its data.raw too."""
    return any(word.partition("=")[0] == "--data.raw" for word in words)


def what_is_asked(arguments: argparse.Namespace, others: bool) -> str:
    """Return what is to be done other than scoring or comparing, "" for that; Stop where options contradict.

    Of the rows that are changed (robustness) --data.raw says where their recordings are.
    """
    if arguments.explain < 0:
        raise Stop(f"--explain {arguments.explain}: must be at least 0")
    asked = [name for name in ("ensemble", "leads", "robustness", "explain") if getattr(arguments, name)]
    if others and "robustness" not in asked:
        asked.append("data.raw")
    if len(asked) > 1:
        raise Stop(f"--{asked[0]} and --{asked[1]}: give one of them at a time")
    if "ensemble" in asked and len(arguments.folders) < 2:
        raise Stop("--ensemble: is of two or more runs")
    if asked and "ensemble" not in asked and len(arguments.folders) > 1:
        raise Stop(f"--{asked[0]}: is of one run")
    return asked[0] if asked else ""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("runs/demo")], metavar="RUN",
                        help="a run of train.py, or two to compare, or several with --ensemble")  # fmt: skip
    parser.add_argument("--ensemble", action="store_true", help="score the rows by the mean of the runs' scores")
    parser.add_argument("--robustness", action="store_true", help="score the rows with noise, a lead off, another gain")
    parser.add_argument("--leads", action="store_true", help="score the rows with 6, 3, 2 and 1 of their leads")
    parser.add_argument("--explain", type=int, default=0, metavar="N", help="rows of each class to explain")
    settings, arguments = config.load(parser, argv, base=lambda given: given.folders[0] / runs.CONFIG)
    words = sys.argv[1:] if argv is None else argv
    folder = arguments.folders[0]
    asked, n_runs = what_is_asked(arguments, scores_others(words)), len(arguments.folders)
    if n_runs > 2 and not asked:
        raise Stop(f"{n_runs} runs: one is scored, two are compared, more need --ensemble")
    if asked == "ensemble":
        import ensemble

        ensemble.evaluate_ensemble(arguments.folders, settings)
    elif asked == "leads":
        import leadsets

        leadsets.evaluate(folder, settings)
    elif asked == "robustness":
        import robustness

        robustness.evaluate(folder, settings)
    elif asked == "data.raw":
        import external

        external.evaluate(folder, settings)
    elif n_runs == 2:
        from compare import compare

        print(compare(folder, arguments.folders[1], settings))
    else:
        evaluate_run(folder, settings, arguments.explain)


if __name__ == "__main__":
    script.run(main)

"""The card of a trained network: what it is, what it has learnt from, how it was scored, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping

from bundle import Bundle
from config import Settings
from data import Dataset
from metrics import Report
from script import markdown_table

SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "macro_average_precision": "macro average precision",
    "calibration_error": "calibration error",
}
RARE = 10  # rows of a class, on fewer of which a score says nothing


def model_card(
    trained: Bundle,
    dataset: Dataset,
    settings: Settings,
    report: Report,
    between: Mapping[str, tuple[float, float]],
    patients: str,
) -> str:
    """Return the card as Markdown, after the headings of Mitchell et al. 2019 (arXiv:1810.03993).

    Parameters
    ----------
    trained : the network
    dataset : the prepared dataset that it learnt from and was scored on
    settings : of the run
    report : the scores of the split that was evaluated
    between : their 95 % intervals over patients
    patients : of how many patients they are
    """
    summary, recipe, raw = dataset.summary, trained.recipe, dataset.summary.identity.sources
    known = f"{summary.patients:,} patients" if summary.patients_known else "patients unknown"
    window = "a beat" if recipe.of_beats else f"{recipe.window_s:g} s"
    leads = ", ".join("/".join(slot) for slot in recipe.leads)
    pieces = trained.crops
    cut = f", in pieces of {pieces.samples / recipe.fs:g} s, the {pieces.pool} of whose scores counts" if pieces else ""
    answer = "one class for each row" if trained.task == "multiclass" else "any number of classes for each row"
    learnt, chosen, tested = (
        ", ".join(folds) or "none" for folds in (settings.data.train, settings.data.validation, settings.data.test)
    )
    leak = f"* **LEAK: {summary.leak}.**\n" if summary.leak else ""
    training, teachers = settings.training, ", ".join(settings.training.teachers)
    soft = f"* {training.distill:g} of each label is the mean score of {teachers}.\n" if teachers else ""
    rare = [entry.name for entry in report.per_class if entry.support < RARE]
    few = f"* Fewer than {RARE} rows of {', '.join(rare)}: nothing can be said of these.\n" if rare else ""
    alone = "" if summary.patients_known else "* The patients are unknown: one may stand in several folds.\n"
    return f"""# {trained.name}: {", ".join(trained.classes)}

**Not a medical device.** For research and teaching. Nothing here has been validated for diagnosis or treatment.

## What it is

* Network `{trained.name}` with {sum(p.numel() for p in trained.network.parameters()):,} parameters, {answer}.
* It takes {window} at {recipe.fs:g} Hz from leads {leads}{cut}.
* Weights after epoch {trained.origin.epoch} of {training.epochs}, of {trained.origin.date}, by the scripts of
  commit {trained.origin.commit[:12]}.

## What it has learnt from

* `{summary.name}`: {raw.records:,} recordings (SHA-256 of their list {raw.sha256[:16]}), {summary.rows:,}
  rows, {known}.
* Split {settings.data.split}: folds {learnt} to learn from; {chosen} to choose epoch, thresholds and temperature
  ({trained.temperature:.3f}); {tested} to test.
{soft}{leak}
## How it scores on its {settings.evaluation.split} rows

{report.n_rows:,} rows of {patients}; in brackets the 95 % interval over patients.

{_table(report, between)}

## Where it ends

* Scores are of recordings like those above: other devices, electrodes, ages and diseases were not tried.
  `python evaluate.py RUN --data.raw FOLDER` scores it on others.
* The validation rows chose epoch, thresholds and temperature; scores on them are too good.
{few}{alone}"""


def _table(report: Report, between: Mapping[str, tuple[float, float]]) -> str:
    of_all = []
    for name, label in SCORES.items():
        value = getattr(report, name)
        low_high = " ({:.3f} to {:.3f})".format(*between[name]) if name in between else ""
        of_all.append([label, f"{'-' if value is None else f'{value:.3f}'}{low_high}"])
    of_classes = []
    for entry in report.per_class:
        auroc = "-" if entry.auroc is None else f"{entry.auroc:.3f}"
        of_classes.append([entry.name, f"{entry.support:,}", f"{entry.recall:.3f}", f"{entry.precision:.3f}", auroc])
    header = ["class", "rows", "recall", "precision", "AUROC"]
    return f"{markdown_table(['score', 'value'], of_all)}\n\n{markdown_table(header, of_classes)}"

"""What a run still finds where recordings have some of their leads only: 12, 6, 3, 2 or 1.

    leadsets.evaluate(Path("runs/ptbxl-leads"), settings)      # python evaluate.py runs/ptbxl-leads --leads

The rows of a split are scored again with all but some of their slots zero: this is what infer.py feeds the network for
a recording that lacks these leads, where `recipe.missing` is zeros. The thresholds stay those of the checkpoint. The
sets are those of the challenge of 2021 (Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography, Computing
in Cardiology 2021) but its four leads, whose III is II less I; beyond them each lead alone. A row that has none of the
leads of a set counts as decided for no class, with a score of 0 for each.

Writes runs/<name>/report-leads/, for another split than test report-<split>-leads/, whole or not at all: report.md,
leads.csv, leads.png.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import answers
import bundle
import pqrst
import runs
import script
from answers import Answer, Array, numbered, pooled
from batches import Batch, Batches, scoring_batches
from bundle import Bundle
from config import Settings
from data import Dataset
from evaluate import open_run
from folds import Rows
from recipe import TWELVE_LEADS, Recipe
from script import Stop

SETS = {"6 limb leads": TWELVE_LEADS[:6], "3 leads: I, II, V2": ("I", "II", "V2"), "2 leads: I, II": ("I", "II")}


def subsets_of(recipe: Recipe) -> dict[str, list[int]]:
    """List the slots that each subset of leads keeps, by its name: first all slots, then sets of them, then each alone.

    A set is there where each of its leads fills a slot of its own, by its name.

    Raises
    ------
    Stop
        There is nothing to leave out, or rows would have been scaled otherwise without some of their leads.
    """
    leads = recipe.leads
    slots = [k for k, names in enumerate(leads) if names != ("zeros",)]
    if len(slots) < 2:
        raise Stop("--leads: the rows have one lead, of which none can be left out")
    if recipe.scale.kind != "none" and recipe.scale.over == "record":
        raise Stop("--leads: recipe.scale.over: record scales the leads of a row by each other; needs lead or dataset")
    subsets = {f"all {len(slots)} leads": slots}
    for name, wanted in SETS.items():
        kept = [k for k, place in enumerate(pqrst.match_leads(leads, list(wanted))) if place >= 0]
        if len(kept) == len(wanted) < len(slots):
            subsets[name] = kept
    first = [names[0] for names in leads]
    for k in slots:
        which = f" (slot {k + 1})" if first.count(first[k]) > 1 else ""
        subsets[f"lead {first[k]}{which}"] = [k]
    return subsets


def batches_of(dataset: Dataset, rows: Rows, kept: Sequence[int], size: int) -> Iterator[Batch]:
    """Give rows in batches of `size`, with zeros in all slots but those kept."""
    batches, hidden = Batches(dataset), np.setdiff1d(np.arange(len(dataset.recipe.leads)), kept)
    for share in scoring_batches(rows, size):
        batch = batches[share]  # a copy of what is stored
        batch.signal[:, hidden] = 0
        yield batch


def answer_of(trained: Bundle, dataset: Dataset, rows: Rows, units: Array, kept: Sequence[int], size: int) -> Answer:
    """Score the rows with some of their slots, `size` at a time; `units` as answers.numbered gives them."""
    there = rows[dataset.lead_mask[rows][:, kept].any(axis=1)]  # infer.py makes no row without a lead
    _, logits = bundle.score(trained, batches_of(dataset, there, kept, size))
    return pooled(trained, there, logits, dataset.inside(there), units)


def notes_of(recipe: Recipe) -> list[str]:
    """Say in sentences what differs from recordings that really have these leads only."""
    notes = []
    if recipe.missing == "error":
        notes.append(
            "infer.py refuses a recording that lacks a lead, as recipe.missing is error; configs/ptbxl-leads.yaml "
            "trains for any leads."
        )
    if recipe.of_beats or recipe.context:
        notes.append("The beats, and the numbers beside the rows, are those of recordings with all leads.")
    return notes


def evaluate(run: Path, settings: Settings) -> None:
    """Score a split of the run's dataset with subsets of its leads, write the report and print it.

    Raises
    ------
    Stop
        What `open_run` and `subsets_of` raise.
    """
    trained, dataset, rows = open_run(run, settings)
    subsets = subsets_of(trained.recipe)
    split, size = settings.evaluation.split, settings.evaluation.batch_size
    first, units = numbered(dataset, rows, rows if settings.evaluation.windows else dataset.units(rows))
    found = {}
    for name, kept in (bar := tqdm(subsets.items(), unit=" subsets", disable=None, leave=False)):
        bar.set_description(name)
        found[name] = answer_of(trained, dataset, rows, units, kept, size)
    scored = [dataset.classes.index(name) for name in settings.data.scored_classes or dataset.classes]
    table = answers.table_of("leads", found, dataset.labels[first], dataset.patient[first], scored)
    text = (
        f"# {run}: {split} rows with some of their leads\n\n"
        f"{trained.name}, {settings.evaluation.checkpoint} checkpoint of epoch {trained.origin.epoch}, on "
        f"{len(rows):,} rows, {dataset.patients(rows)}. The slots of the other leads are zeros; the thresholds are the "
        f"same for all.\n\n{dataset.summary.warning}"
        + answers.as_markdown(table)
        + "".join(f"\n{note}\n" for note in notes_of(trained.recipe))
    )
    place = run / f"{runs.REPORT}{'' if split == 'test' else f'-{split}'}-leads"
    with script.folder_aside(place) as folder:
        table.to_csv(folder / "leads.csv", index=False, float_format="%.6g")
        (folder / "report.md").write_text(text)
        answers.draw(table, folder / "leads.png", ("macro_f1", "macro_auroc"))
    print(text)
    print(f"report in {place}", file=sys.stderr)

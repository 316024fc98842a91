"""The scores of groups of people and places: by age, sex, device and site, where the source knows them.

    known = known_of([Path("prepared/ptbxl")], names)       # a line per row: age (years), sex, device, site
    table = score_groups(known, answers)                    # a line per group
    as_text(table)                                          # sections of the report

Read for reports alone. Rows of which nothing is known are a group of their own, `unknown`, and none is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import metrics
import script
from data import RECORDS, prefixes
from decide import decide
from intervals import intervals_of
from script import Stop

Array = NDArray[Any]
COLUMNS = ("age", "sex", "device", "site")
BANDS = {0: "0-17", 18: "18-39", 40: "40-59", 60: "60-79", 80: "80+"}  # years, by the first of each
UNKNOWN, OTHER = "unknown", "other"
LEAST = 20  # rows of a group; smaller ones are pooled
SCORES = {"macro_f1": "macro F1", "macro_auroc": "macro AUROC"}


class Answers(NamedTuple):
    """Scored rows: what they are and what a network says of them."""

    targets: Array  # (N, K) of 0 and 1
    scores: Array  # (N, K)
    patients: Array  # (N,) any names
    classes: Sequence[str]
    task: str
    thresholds: Sequence[float] | None
    scored: Sequence[str]  # the classes that enter the macro scores


def known_of(folders: Sequence[Path], names: Sequence[str]) -> pd.DataFrame | None:
    """Look up what is known of rows in the records.csv of the prepared datasets that they come from.

    Parameters
    ----------
    folders : of the prepared datasets, as they are given to data.Dataset
    names : (N,) the record of each row, as data.Dataset calls it

    Returns
    -------
    (N, 4) texts in COLUMNS, empty where nothing is known; None where no folder has the file

    Raises
    ------
    Stop
        The file is no table of records.
    """
    tables = [_read(folder / RECORDS, prefix) for folder, prefix in zip(folders, prefixes(folders), strict=True)]
    found = [table for table in tables if table is not None]
    if not found:
        return None
    table = pd.concat(found)
    return table[~table.index.duplicated()].reindex(list(names)).fillna("").reset_index(drop=True)


def _read(path: Path, prefix: str) -> pd.DataFrame | None:
    """Read what a records.csv knows, by the name of the record behind the prefix; None where there is no such file."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Stop(f"{path}: not a CSV table: {error}; preprocess.py writes it anew if it is deleted") from error
    if missing := [name for name in ("record", *COLUMNS) if name not in table]:
        raise Stop(f"{path}: has no column {', '.join(missing)}; preprocess.py writes it anew if it is deleted")
    table.index = pd.Index([prefix + _name(cell) for cell in table["record"]])
    return table[list(COLUMNS)]


def _name(cell: str) -> str:
    """Return the text that `script.cell` made a cell of: without the quotation mark that it sets before a `=`."""
    return cell[1:] if cell[:1] == "'" and script.cell(cell[1:]) == cell else cell


def group_names(known: pd.DataFrame) -> dict[str, list[str]]:
    """Return the group of each row, (N,) names, by each column that has at least two groups of LEAST rows.

    Ages are in bands of years. What is not known is UNKNOWN; groups with fewer than LEAST rows are together OTHER.
    """
    names: dict[str, list[str]] = {}
    for column in COLUMNS:
        values = known[column].map(_band) if column == "age" else known[column].replace("", UNKNOWN)
        counts = values[values != UNKNOWN].value_counts()
        large = set(counts.index[counts >= LEAST])
        if len(large) > 1:
            names[column] = [value if value in large or value == UNKNOWN else OTHER for value in values]
    return names


def _band(age: str) -> str:
    years = pd.to_numeric(age, errors="coerce")
    return UNKNOWN if not years >= 0 else [name for first, name in BANDS.items() if years >= first][-1]  # NaN is not


def score_groups(known: pd.DataFrame, answers: Answers) -> pd.DataFrame:
    """Score each group of rows alone.

    Macro scores are over the scored classes that the group has a row of: with the others an F1 of 0 would enter, and
    small groups would look worse than they are. AUROC also needs rows without the class.

    Parameters
    ----------
    known : (N, 4) what is known of each row
    answers : (N,) rows

    Returns
    -------
    A line per group: `by` (the column), `group`, `rows`, `patients`, `classes` that entered macro F1, `macro_f1` and
    `macro_auroc` with `_low` and `_high` of their 95 % intervals over patients. NaN where there is no such number: of
    fewer than LEAST rows, of one patient, or where a class is too rare for an interval.
    """
    lines: list[dict[str, Any]] = []
    for column, names in group_names(known).items():
        of_row = np.array(names)
        # bands and sexes in their order, devices and sites by falling rows, what is pooled or unknown last
        found, counts = np.unique(of_row, return_counts=True)
        falling = dict(zip(found.tolist(), (-counts).tolist(), strict=True)) if column in ("device", "site") else {}
        for name in sorted(found.tolist(), key=lambda n: (n == UNKNOWN, n == OTHER, falling.get(n, 0), n)):
            here = np.flatnonzero(of_row == name)
            n_patients = len(np.unique(answers.patients[here]))
            line = {"by": column, "group": name, "rows": len(here), "patients": n_patients}
            lines.append(line | _scores(here, answers))
    return pd.DataFrame(lines)


def _scores(here: Array, answers: Answers) -> dict[str, Any]:
    targets, scores = answers.targets[here], answers.scores[here]
    present = [c for c, name in enumerate(answers.classes) if name in answers.scored and targets[:, c].any()]
    line: dict[str, Any] = {"classes": len(present)}
    line |= {name + end: np.nan for name in SCORES for end in ("", "_low", "_high")}
    if len(here) < LEAST or not present:
        return line
    scored = [answers.classes[c] for c in present]
    report = metrics.scores_of(targets, scores, answers.classes, answers.task, answers.thresholds, scored)
    decided = decide(scores, answers.task, answers.thresholds)
    between = intervals_of(targets, scores, decided, answers.patients[here], present)
    for name in SCORES:
        value = getattr(report, name)
        low, high = between.get(name, (np.nan, np.nan))
        line |= {name: np.nan if value is None else value, f"{name}_low": low, f"{name}_high": high}
    return line


def as_text(table: pd.DataFrame) -> str:
    """Return the groups as sections of a report, one per column; nothing where there are none."""
    note = (
        "Macro scores are over the scored classes that a group has rows of: groups with other classes are not the same "
        f"task. In brackets the 95 % interval over patients. Groups of fewer than {LEAST} rows are pooled as `{OTHER}`."
    )
    sections: list[str] = []
    for column, lines in table.groupby("by", sort=False) if len(table) else ():
        rows = [[line["group"], *_cells(line)] for line in lines.to_dict("records")]
        years = ", years" if column == "age" else ""
        header = [f"{column}{years}", "rows", "patients", "classes", *SCORES.values()]
        once = "" if sections else f"{note}\n\n"
        sections.append(f"## By {column}\n\n{once}{script.markdown_table(header, rows)}\n")
    return "\n".join(sections)


def _cells(line: dict[Any, Any]) -> list[str]:
    cells = [f"{line[name]:,}" for name in ("rows", "patients", "classes")]
    for name in SCORES:
        between = "" if np.isnan(line[f"{name}_low"]) else f" ({line[f'{name}_low']:.3f} to {line[f'{name}_high']:.3f})"
        cells.append("–" if np.isnan(line[name]) else f"{line[name]:.3f}{between}")
    return cells

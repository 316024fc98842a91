"""What the explorer shows of a record: tables, stretches of the sheet, pictures. Without a browser.

shown = Shown(record, trained, predict(record, trained, "runs/demo", settings), key)
table = findings_of(shown.prediction)
png = picture(shown, strip_of(record, [1, 6], 60), Drawing(None, 25, 10))
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import altair as alt
import pandas as pd

import attributions
import explain
import infer
import pqrst
import runs
import sheet
from apps.files import bare
from bundle import Bundle
from config import Settings
from prediction import Prediction
from rhythm import clock

MAX_LEADS = 3  # of a strip
MAX_NUMBERS = 5  # beside the signal, with a bar of their own
LABEL = 200  # pixels of a name beside its bar
MARKDOWN = re.compile(r"([\\`*_\[\]$~:<>#])")  # what a browser would not show as it is


class Drawing(NamedTuple):
    """How a sheet is drawn."""

    layout: str | None  # None: a line for each lead
    speed: float  # mm/s
    gain: float  # mm/mV


class Shown(NamedTuple):
    """A record, the network that was asked, and its answer."""

    record: pqrst.Record
    trained: Bundle
    prediction: Prediction
    key: str  # tells this record from others


def predict(record: pqrst.Record, trained: Bundle, run: str, settings: Settings) -> Prediction:
    """Predict with the names of files as they were uploaded."""
    found = infer.predict_record(record, trained, run, settings.inference.leads, settings.inference.batch_size)
    path = Path(record.name)
    return replace(found, record=path.name, warnings=tuple(bare(text, path.parent) for text in found.warnings))


def findings_of(prediction: Prediction) -> pd.DataFrame:
    """Return a table of the findings, or of the beats of each class."""
    if prediction.samples is not None:
        n = max(1, len(prediction.samples))
        counts = prediction.counts.items()
        return pd.DataFrame([{"class": name, "beats": k, "share": k / n} for name, k in counts])
    table = pd.DataFrame(prediction.rows())
    table["present"] = ["present" if present else "absent" for present in table["present"]]
    shown = ["class", "present", "probability", *(["threshold"] if prediction.thresholds else [])]
    return table[shown]


def told_of(trained: Bundle) -> str:
    """Say what the probabilities are, and what decides."""
    how = "not calibrated" if trained.temperature == 1 else f"calibrated by a temperature of {trained.temperature:.2f}"
    what = (
        "a class is present from its threshold on" if trained.thresholds else "the class with the highest one is taken"
    )
    return f"Probabilities are {how}; {what}."


def layouts_of(record: pqrst.Record) -> list[str | None]:
    """Return the layouts of a sheet that the record has the leads for."""
    try:
        sheet.rows_of(record, "12x1")
    except ValueError:
        return [None]
    return list(sheet.LAYOUTS)


def leads_used(record: pqrst.Record, trained: Bundle) -> list[int]:
    """Return the places of the leads that the network reads, for a strip; of the first ones where it knows no name."""
    places = pqrst.match_leads(trained.recipe.leads, list(record.leads))
    return ([place for place in places if place >= 0] or list(range(len(record.leads))))[:MAX_LEADS]


def names_of(record: pqrst.Record) -> list[str]:
    """Return the names of the leads, with their places where several have one name."""
    return [f"{name} ({k + 1})" if record.leads.count(name) > 1 else name for k, name in enumerate(record.leads)]


def strip_of(record: pqrst.Record, leads: Sequence[int], start_s: float) -> list[sheet.Row]:
    """Lay out ten seconds of the leads at these places, with the time above the first."""
    lines = sheet.rows_at(record, start_s + sheet.LINE_S / 2)
    rows = [lines[lead] for lead in leads]
    piece = rows[0].pieces[0]
    return [rows[0]._replace(caption=f"{clock(piece.start_s)} to {clock(piece.start_s + piece.seconds)}"), *rows[1:]]


def text_of_moment(time_s: float, text: str) -> str:
    """Return a moment with its time in front, once."""
    return f"{clock(time_s)} {text.removesuffix(f' at {clock(time_s)}')}"


def latest_start_s(record: pqrst.Record) -> int:
    """Return the last whole second at which a strip may begin."""
    return max(0, int(-(-record.signal.shape[1] // record.fs) - sheet.LINE_S))


def picture(
    shown: Shown, rows: Sequence[sheet.Row], drawing: Drawing, kind: str = "png", shades: Sequence[sheet.Shade] = ()
) -> bytes:
    """Draw a sheet of the record and return the file."""
    title, marks = shown.prediction.title(), infer.marks_of(shown.prediction)
    scale = {"speed": drawing.speed, "gain": drawing.gain}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sheet.{kind}"
        sheet.save_sheet(path, shown.record, title, rows, marks, shades=shades, **scale)
        return path.read_bytes()


def methods_of(run: str | Path) -> list[str]:
    """Return the methods that can explain; expected gradients compare with the training rows, so only of a run."""
    return [method for method in attributions.METHODS if method != "expected" or (_folder(run) / runs.CONFIG).exists()]


def _folder(run: str | Path) -> Path:
    return Path(run) if Path(run).is_dir() else Path(run).parent


def explained(fed: infer.Fed, shown: Shown, name: str, method: str, row: int | None) -> attributions.Attribution:
    """Tell what speaks for a class in a row of the record."""
    references = None
    if method == "expected":
        references = explain.references_of(_folder(shown.prediction.run), shown.trained.recipe)
    return explain.explain(fed, shown.trained, name, method, row, references)


def per_lead(found: attributions.Attribution) -> pd.DataFrame:
    """Return a table of what each lead adds, and below it the numbers beside the signal that count most."""
    names = sorted(found.numbers, key=lambda name: -found.number_share[name])[:MAX_NUMBERS]
    adds = [*found.per_lead.tolist(), *(found.numbers[name] for name in names)]
    return pd.DataFrame({"name": [*found.leads, *names], "adds": adds})


def bars_of(found: attributions.Attribution) -> alt.Chart:
    """Draw a bar for each lead and number, in the colours of the sheet."""
    colour = alt.condition("datum.adds > 0", alt.value(sheet.FOR), alt.value(sheet.AGAINST))
    adds = alt.X("adds", title="adds to the log odds")
    names = alt.Y("name", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL))
    chart: alt.Chart = alt.Chart(per_lead(found)).mark_bar().encode(adds, names, color=colour)
    return chart


def told_of_row(found: attributions.Attribution) -> str:
    """Say what the attributions add up to."""
    of_what = "a flat line" if not found.numbers else "a flat line with typical numbers"
    sums = "; occluded one by one, these need not add up" if found.method == "occlusion" else ""
    return (
        f"Log odds of {found.class_name}: {found.output:.2f}; of {of_what}: {found.baseline:.2f}. "
        f"{found.error:.1%} of the difference is not explained{sums}."
    )


def literal(text: str) -> str:
    """Return a text, e.g. the name of an uploaded file, so that a browser shows every character as it is."""
    return MARKDOWN.sub(r"\\\1", text)

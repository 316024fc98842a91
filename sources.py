"""The datasets: for each one a function that yields its recordings, patients, labels and official folds.

Adding one is a function under `@source(...)` and a YAML in configs/. Knows nothing of signals.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple


class Recording(NamedTuple):
    """One recording of a dataset."""

    locator: str  # path below the raw folder
    patient: str
    labels: tuple[str, ...] = ()  # classes of the whole recording; of beats, the symbols say
    fold: str | None = None  # the owner's; None: preprocess.py draws one
    annotations: str | None = None  # extension of the file with the beats


@dataclass(frozen=True)
class Source:
    """A dataset: its classes in order, and where its recordings are."""

    classes: tuple[str, ...]
    task: Literal["multiclass", "multilabel"]
    recordings: Callable[[Path], Iterator[Recording]]
    symbols: Mapping[str, str] = field(default_factory=dict)  # beat symbol -> class


SOURCES: dict[str, Source] = {}


def source(
    classes: tuple[str, ...], task: Literal["multiclass", "multilabel"], symbols: Mapping[str, str] | None = None
) -> Callable[[Callable[[Path], Iterator[Recording]]], Callable[[Path], Iterator[Recording]]]:
    """Register a function `(raw folder) -> recordings` under its name."""

    def register(function: Callable[[Path], Iterator[Recording]]) -> Callable[[Path], Iterator[Recording]]:
        SOURCES[function.__name__] = Source(classes, task, function, symbols or {})
        return function

    return register


# ANSI/AAMI EC57: the five classes of beats, from the symbols of MIT-BIH annotations. `B` (bundle branch block,
# unspecified), `r`, `n` and `?` are beats to which it gives no class.
AAMI = {
    **dict.fromkeys("NLRej", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")  # every annotation that marks a beat (WFDB application guide)

# De Chazal, O'Dwyer and Reilly 2004: training and test records of MIT-BIH; AAMI practice leaves the paced ones out.
# fmt: off
DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)
DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210",
    "212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)
PACED = ("102", "104", "107", "217")
SAME_PERSON = {"202": "201"}
# fmt: on


@source(classes=("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"), task="multilabel")
def demo(raw: Path) -> Iterator[Recording]:
    """The simulated recordings of simulate.py; a recording with none of the classes is normal."""
    with (raw / "records.csv").open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            labels = tuple(name for name in SOURCES["demo"].classes if int(row[name]))
            yield Recording(row["record"] + ".hea", row["patient"], labels)


@source(classes=("N", "S", "V", "F", "Q"), task="multiclass", symbols=AAMI)
def mitdb(raw: Path) -> Iterator[Recording]:
    """MIT-BIH Arrhythmia Database 1.0.0: two-lead Holter recordings of half an hour, every beat annotated.

    Records 201 and 202 come from one person. The folds are de Chazal's, with the paced records beside them.
    """
    groups = {name: group for group, names in (("DS1", DS1), ("DS2", DS2), ("paced", PACED)) for name in names}
    for header in sorted(raw.glob("*.hea")):
        patient = SAME_PERSON.get(header.stem, header.stem)
        yield Recording(header.name, patient, fold=groups.get(header.stem), annotations="atr")

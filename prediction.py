"""What a network says of one record, and how it is told: JSON, CSV, text, WFDB annotations.

prediction = infer.predict("119.hea")
print(prediction.to_text())
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import script
from rhythm import Rhythm, clock, summarise

if TYPE_CHECKING:
    from bundle import Origin

BEAT_COLUMNS = ("sample", "time_s", "class", "probability")
DOUBTFUL = 10  # beats that are named as the least certain
FINDING_COLUMNS = ("class", "probability", "threshold", "present")


@dataclass(frozen=True)
class Prediction:
    """What a network says of one record: a class for each beat, or findings of the whole record."""

    record: str
    fs: float  # Hz
    leads: tuple[str, ...]  # of the record
    duration_s: float
    run: str  # that the network comes from
    origin: Origin
    warnings: tuple[str, ...]
    classes: tuple[str, ...]
    scores: NDArray[np.float32]  # (N, K) 0..1; of findings (1, K)
    decided: NDArray[np.uint8]  # (N, K)
    thresholds: tuple[float, ...] | None  # (K,); None where the highest score decides
    samples: NDArray[np.int64] | None = None  # (N,) R peaks of the beats, at the record's rate; None: findings
    gaps: tuple[tuple[int, int], ...] = ()  # stretches of samples without a signal

    @property
    def beat_classes(self) -> NDArray[np.int64]:
        """(N,) the class with the highest score of each beat, as a place in `classes`."""
        places: NDArray[np.int64] = self.scores.argmax(axis=1)
        return places

    @property
    def counts(self) -> dict[str, int]:
        """Beats of each class."""
        n = np.bincount(self.beat_classes, minlength=len(self.classes))
        return dict(zip(self.classes, n.tolist(), strict=True))

    def r_peaks(self) -> NDArray[np.int64]:
        """Return `samples`; ValueError where the model is one of whole records."""
        if self.samples is None:
            raise ValueError(f"{self.run} finds no beats; it is a model of whole records")
        return self.samples

    def least_certain(self) -> list[int]:
        """Return the places of all beats, the least certain first."""
        order: list[int] = np.argsort(self.scores.max(axis=1), kind="stable").tolist()
        return order

    def rows(self) -> list[dict[str, Any]]:
        """Return an entry for each beat, in order of time, or for each class that may be found.

        Where the highest score decides, classes come by falling score: the first is the answer.
        """
        if self.samples is None:
            limits = self.thresholds or (None,) * len(self.classes)
            columns = zip(self.classes, self.scores[0].tolist(), limits, self.decided[0].tolist(), strict=True)
            found = [
                {"class": name, "probability": score, "threshold": limit, "present": bool(present)}
                for name, score, limit, present in columns
            ]
            return (
                found if self.thresholds else sorted(found, key=lambda row: (not row["present"], -row["probability"]))
            )
        return [
            {
                "sample": sample,
                "time_s": sample / self.fs,
                "class": self.classes[k],
                "probability": float(score[k]),
            }
            for sample, k, score in zip(self.samples.tolist(), self.beat_classes, self.scores, strict=True)
        ]

    def to_json(self, indent: int | None = None) -> str:
        """Return one JSON object; without an indent in one line."""
        tree: dict[str, Any] = {
            "record": self.record,
            "fs": self.fs,
            "leads": list(self.leads),
            "duration_s": self.duration_s,
            "model": {
                "run": self.run,
                "commit": self.origin.commit,
                "data": self.origin.data,
                "date": self.origin.date,
            },
            "warnings": list(self.warnings),
        }
        if self.samples is None:
            tree["findings"] = self.rows()
        else:
            tree["beats"] = self.rows()
            tree["summary"] = self.rhythm().tree() | {"counts": self.counts}
        return json.dumps(tree, indent=indent)

    def to_csv(self, header: bool = True) -> str:
        """Return a line for each beat or finding, under a header unless other lines stand above."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns_of(self.samples is not None), lineterminator="\n")
        if header:
            writer.writeheader()
        cells = {"record": script.cell(self.record)}
        writer.writerows({**cells, **row, "class": script.cell(row["class"])} for row in self.rows())
        return text.getvalue()

    def rhythm(self) -> Rhythm:
        """Return what the beats add up to; ValueError where there are none."""
        return summarise(self.r_peaks(), [self.classes[k] for k in self.beat_classes], self.fs, self.gaps)

    def to_text(self, beats: bool = False) -> str:
        """Return the prediction for people: of beats a summary, and on request a line for each."""
        lines = [f"{self.record}: {self.duration_s:.1f} s at {self.fs:g} Hz, leads {', '.join(self.leads)}"]
        if self.samples is None:
            for row in self.rows():
                present = "present" if row["present"] else "-"
                lines.append(f"  {row['class']:<12} {row['probability']:6.3f}  {present}")
            return "\n".join(lines)
        rows = self.rows()
        if beats:
            lines.append(f"{'time (s)':>10}  class  probability")
            lines += [f"{row['time_s']:10.3f}  {row['class']:<5}  {row['probability']:11.3f}" for row in rows]
        lines += self.rhythm().to_text()
        doubtful = [rows[k] for k in self.least_certain()[:DOUBTFUL]]
        if doubtful:
            shown = ", ".join(f"{clock(row['time_s'])} {row['class']} {row['probability']:.2f}" for row in doubtful)
            lines.append(f"least certain: {shown}")
        return "\n".join(lines)

    def moments(self) -> list[tuple[int, str]]:
        """Return the samples worth a look, each with what is there: the longest run and pause, the least certain beats.

        Moments of the same ten seconds are one.
        """
        samples, found = self.r_peaks(), self.rhythm()
        moments = []
        if found.runs:
            run = max(found.runs, key=lambda run: run.n_beats)
            moments.append((run.start, f"longest run: {run.kind} of {run.n_beats} beats"))
        if found.pauses:
            pause = max(found.pauses, key=lambda pause: pause.seconds)
            moments.append((pause.start, f"longest pause: {pause.seconds:.1f} s"))
        for k in self.least_certain():
            if len(moments) >= DOUBTFUL + 2:
                break
            sample = int(samples[k])
            if all(abs(sample - other) > 5 * self.fs for other, _ in moments):
                name = self.classes[self.beat_classes[k]]
                moments.append((sample, f"uncertain: {name} {self.scores[k].max():.2f} at {clock(sample / self.fs)}"))
        return moments

    def title(self) -> str:
        """Return what was found in one line, for a figure."""
        if self.samples is None:
            found = ", ".join(f"{row['class']} {row['probability']:.2f}" for row in self.rows() if row["present"])
        else:
            found = ", ".join(f"{name} {n:,}" for name, n in self.counts.items() if n)
        return f"{Path(self.record).name}: {found or 'no finding'} (not a medical device)"

    def annotation(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return samples and symbols of the beats as WFDB annotations hold them; ValueError where there are none."""
        samples = self.r_peaks()
        if not len(samples):
            raise ValueError(f"{self.record}: no beats found, nothing to annotate")
        return samples, [self.classes[k] for k in self.beat_classes]


def columns_of(of_beats: bool) -> list[str]:
    """Name the columns of the CSV, of beats or of findings."""
    return ["record", *(BEAT_COLUMNS if of_beats else FINDING_COLUMNS)]

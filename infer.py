"""Recordings -> beats or findings.

    python infer.py record.hea                                # with the newest run that fits the record's leads
    python infer.py 119.hea --run runs/mitdb --format json
    python infer.py folder/ --run runs/mitdb --format csv > beats.csv
    python infer.py 119.hea --run runs/mitdb --annotate qrs --plot 119.png
    python infer.py 820.hea --run runs/mitdb --inference.leads MLII=ECG1,V1=zeros

The prediction goes to standard output, everything else to standard error. The signal passes through the recipe in the
checkpoint, by the code that prepared the training data. R peaks are detected, never read from annotations.
Not a medical device: for research and teaching only.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bundle
import config
import pqrst
import readers
import runs
import script
from beats import beat_context, detect
from bundle import Bundle
from data import Batch, scoring_batches
from decide import decide
from recipe import Recipe
from script import Stop

# ------------------------------------------------------------------------------------------------ the prediction


@dataclass(frozen=True)
class Prediction:
    """What a network says of one record: a class for each beat, or findings of the whole record."""

    record: str
    fs: float  # Hz
    leads: tuple[str, ...]  # of the record
    duration_s: float
    run: str  # that the network comes from, and the commit of its scripts
    commit: str
    warnings: tuple[str, ...]
    classes: tuple[str, ...]
    scores: NDArray[np.float32]  # (N, K) 0..1; of findings (1, K)
    decided: NDArray[np.uint8]  # (N, K)
    thresholds: tuple[float, ...] | None  # (K,); None where the highest score decides
    samples: NDArray[np.int64] | None = None  # (N,) R peaks of the beats, at the record's rate; None: findings
    mean_hr_bpm: float | None = None  # over all detected beats

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

    def rows(self) -> list[dict[str, Any]]:
        """Return an entry for each beat, in order of time, or for each class that may be found."""
        if self.samples is None:
            limits = self.thresholds or (None,) * len(self.classes)
            columns = zip(self.classes, self.scores[0].tolist(), limits, self.decided[0].tolist(), strict=True)
            return [
                {"class": name, "probability": score, "threshold": limit, "present": bool(present)}
                for name, score, limit, present in columns
            ]
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
            "model": {"run": self.run, "commit": self.commit},
            "warnings": list(self.warnings),
        }
        if self.samples is None:
            tree["findings"] = self.rows()
        else:
            tree["beats"] = self.rows()
            tree["summary"] = {"beats": len(self.samples), "counts": self.counts, "mean_hr_bpm": self.mean_hr_bpm}
        return json.dumps(tree, indent=indent)

    def to_csv(self, header: bool = True) -> str:
        """Return a line for each beat or finding, under a header unless other lines stand above."""
        columns = ["class", "probability", "threshold", "present"]
        if self.samples is not None:
            columns = ["sample", "time_s", "class", "probability"]
        text = io.StringIO()
        writer = csv.DictWriter(text, ["record", *columns], lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({"record": self.record, **row} for row in self.rows())
        return text.getvalue()

    def to_text(self) -> str:
        """Return the prediction for people."""
        lines = [f"{self.record}: {self.duration_s:.1f} s at {self.fs:g} Hz, leads {', '.join(self.leads)}"]
        if self.samples is None:
            for row in self.rows():
                present = "present" if row["present"] else "-"
                lines.append(f"  {row['class']:<12} {row['probability']:6.3f}  {present}")
            return "\n".join(lines)
        lines.append(f"{'time (s)':>10}  class  probability")
        lines += [f"{row['time_s']:10.3f}  {row['class']:<5}  {row['probability']:11.3f}" for row in self.rows()]
        counts = ", ".join(f"{name} {n:,}" for name, n in self.counts.items())
        rate = f"{self.mean_hr_bpm:.0f} beats per minute" if self.mean_hr_bpm else "rate unknown"
        lines.append(f"{len(self.samples):,} beats: {counts}; mean {rate}")
        return "\n".join(lines)

    def title(self) -> str:
        """Return what was found in one line, for a figure."""
        if self.samples is None:
            found = ", ".join(f"{row['class']} {row['probability']:.2f}" for row in self.rows() if row["present"])
        else:
            found = ", ".join(f"{name} {n:,}" for name, n in self.counts.items() if n)
        return f"{Path(self.record).name}: {found or 'no finding'} (not a medical device)"

    def annotation(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return samples and symbols of the beats as WFDB annotations hold them; ValueError where there are none."""
        if self.samples is None:
            raise ValueError(f"{self.run} finds no beats; it is a model of whole records")
        if not len(self.samples):
            raise ValueError(f"{self.record}: no beats found, nothing to annotate")
        return self.samples, [self.classes[k] for k in self.beat_classes]


# ------------------------------------------------------------------------------------------------ which network


def find_bundle(run: str | Path | None, record: pqrst.Record | None = None) -> tuple[str, Bundle]:
    """Load the network of a run, and name the run.

    Parameters
    ----------
    run : a run folder, a checkpoint file, `latest`, or None: the newest run whose slots fit the record's leads
    record : the record to fit, where run is None
    """
    if run is None or run == "latest":
        candidates = runs.newest()
        if not candidates:
            raise Stop("no run in runs/: train one (python train.py) or name one with --run")
        if run is None and record is not None:
            for folder in candidates:
                candidate = bundle.load(runs.checkpoint_of(folder))
                if -1 not in pqrst.match_leads(candidate.recipe.leads, list(record.leads)):
                    return str(folder), candidate
            raise Stop(f"{record.name}: no run in runs/ fits its leads {', '.join(record.leads)}; see --run")
        run = candidates[0]
    return str(run), bundle.load(runs.checkpoint_of(run))


def map_leads(record: pqrst.Record, recipe: Recipe, mapping: str) -> tuple[Recipe, list[str]]:
    """Narrow the recipe's slots to what the mapping says, e.g. `MLII=ECG1,V1=zeros`, and say so in warnings."""
    asked: dict[int, str] = {}  # slot -> lead
    warnings = []
    for pair in mapping.split(","):
        slot, equals, lead = pair.partition("=")
        if not equals:
            raise Stop(f"inference.leads {mapping!r}: expected slot=lead pairs such as MLII=ECG1,V1=zeros")
        places = [place for place, names in enumerate(recipe.leads) if slot in names and place not in asked]
        if not places:
            accepted = ", ".join("|".join(names) for names in recipe.leads)
            raise Stop(f"inference.leads: {slot} is in none of the model's slots {accepted}")
        if lead != "zeros" and lead not in record.leads:
            raise Stop(f"inference.leads: {record.name} has no lead {lead}, its leads are {', '.join(record.leads)}")
        asked[places[0]] = lead
        used = f"{slot} is filled with zeros" if lead == "zeros" else f"lead {lead} is used as {slot}"
        warnings.append(f"{used}, as asked")
    left = [lead for lead in record.leads if lead not in asked.values()]
    others = [place for place in range(len(recipe.leads)) if place not in asked]
    for place, index in zip(others, pqrst.match_leads([recipe.leads[k] for k in others], left), strict=True):
        if index < 0:
            names = "|".join(recipe.leads[place])
            raise Stop(f"{record.name}: has leads {', '.join(record.leads)}; none fills the slot {names}")
        asked[place] = left[index]
    missing = "zeros" if "zeros" in asked.values() else recipe.missing
    slots = tuple((asked[place],) for place in range(len(recipe.leads)))  # no lead is called zeros
    return recipe.model_copy(update={"leads": slots, "missing": missing}), warnings


# ------------------------------------------------------------------------------------------------ one record


def predict(
    record: str | Path | pqrst.Record, run: str | Path | None = None, leads: str = "", batch_size: int = 512
) -> Prediction:
    """Predict beats or findings of one record.

    Parameters
    ----------
    record : path of a recording, as readers.read takes it, or a pqrst.Record
    run : run folder, checkpoint file or `latest`; None takes the newest run in runs/ that fits
    leads : the lead to use for each slot, e.g. `MLII=ECG1,V1=zeros`
    batch_size : rows at a time

    Raises
    ------
    script.Stop, ValueError, FileNotFoundError
        What the command line prints in one line: unreadable records, leads that do not fit, no checkpoint.
    """
    opened = record if isinstance(record, pqrst.Record) else readers.read(record)
    name, trained = find_bundle(run, opened)
    return predict_record(opened, trained, name, leads, batch_size)


def predict_record(
    record: pqrst.Record, trained: Bundle, run: str, leads: str = "", batch_size: int = 512
) -> Prediction:
    """Predict beats or findings of one record with a network that is loaded already."""
    recipe, warnings = trained.recipe, list(record.warnings)
    if leads:
        recipe, mapping_warnings = map_leads(record, recipe, leads)
        warnings += mapping_warnings
    uncalibrated = [lead for lead, good in zip(record.leads, record.calibrated, strict=True) if not good]
    if uncalibrated:
        warnings.append(f"{', '.join(uncalibrated)}: not calibrated, amplitudes are in units of 200 per mV")
    r_peaks = detect(record) if recipe.of_beats else None
    prepared = pqrst.prepare([record], recipe.tree(), None if r_peaks is None else [r_peaks])
    warnings += [text for _, _, text in prepared.warnings if text not in warnings]
    warnings += [text for _, _, text in prepared.errors]
    n_rows = len(prepared.rows)
    if r_peaks is None:
        if not n_rows:
            raise Stop(warnings[-1])
        context, units = np.zeros((n_rows, 0), np.float32), np.zeros(n_rows, np.int64)  # the windows of one record
    else:
        context, units = beat_context(r_peaks, record.fs, recipe.context)[prepared.index], np.arange(n_rows)
    _, logits = bundle.score(trained.network, _batches(prepared, context, len(trained.classes), batch_size))
    _, scores = bundle.pool(logits.reshape(-1, len(trained.classes)), units, trained.task)
    return Prediction(
        record=record.name,
        fs=record.fs,
        leads=tuple(record.leads),
        duration_s=record.signal.shape[1] / record.fs,
        run=run,
        commit=trained.origin.commit,
        warnings=tuple(warnings),
        classes=trained.classes,
        scores=scores,
        decided=decide(scores, trained.task, trained.thresholds),
        thresholds=trained.thresholds,
        samples=None if r_peaks is None else prepared.start,
        mean_hr_bpm=None if r_peaks is None else _mean_rate(r_peaks, record.fs),
    )


def _batches(
    prepared: pqrst.Prepared, context: NDArray[np.float32], n_classes: int, batch_size: int
) -> Iterator[Batch]:
    """Give the rows of a record in batches, without labels."""
    for rows in scoring_batches(np.arange(len(prepared.rows)), batch_size):
        labels = np.zeros((len(rows), n_classes), np.uint8)
        yield Batch(prepared.rows[rows], labels, context[rows], prepared.valid[rows], rows)


def _mean_rate(r_peaks: NDArray[np.int64], fs: float) -> float | None:
    """Return beats per minute, None where there are fewer than two."""
    if len(r_peaks) < 2:
        return None
    return round(60 * (len(r_peaks) - 1) / float((r_peaks[-1] - r_peaks[0]) / fs), 1)


# ------------------------------------------------------------------------------------------------ output


def to_output(predictions: Sequence[Prediction], output_format: str) -> str:
    """Return the predictions as they go to standard output."""
    if output_format == "json":
        return "".join(each.to_json(1 if len(predictions) == 1 else None) + "\n" for each in predictions)
    if output_format == "csv":
        return "".join(each.to_csv(header=number == 0) for number, each in enumerate(predictions))
    return "\n\n".join(each.to_text() for each in predictions) + "\n"


def annotate(path: Path, prediction: Prediction, extension: str) -> Path:
    """Write the beats as a WFDB annotation file beside the record; a file that exists is not overwritten."""
    import wfdb  # slow to import, and only this needs it

    target = path.with_suffix(f".{extension}")
    if "#" in path.name:
        raise Stop(f"--annotate {extension}: {path} is one of many recordings in a file; none can stand beside it")
    if not extension.isalpha():
        raise Stop(f"--annotate {extension}: an annotator's name is made of letters")
    if target.exists():
        raise Stop(f"{target}: already exists; choose another name with --annotate")
    samples, symbols = prediction.annotation()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # beside the target: renaming is then atomic
        wfdb.wrann(target.stem, extension, samples, symbols, fs=prediction.fs, write_dir=folder)
        (Path(folder) / target.name).replace(target)
    return target


def draw(path: Path, record: pqrst.Record, prediction: Prediction) -> None:
    """Draw the record with what was found in it."""
    import plots  # slow to import, and only this needs it

    marks = None
    if prediction.samples is not None:
        found = zip(prediction.samples.tolist(), prediction.beat_classes.tolist(), strict=True)
        marks = [plots.Mark(sample, k, prediction.classes[k]) for sample, k in found]
    plots.save_prediction(record, prediction.title(), path, marks)


def recordings(records: Sequence[Path]) -> list[Path]:
    """Return the recordings named, folders replaced by the headers in them."""
    found: list[Path] = []
    for path in records:
        if path.is_dir():
            inside = sorted(path.glob("*.hea"))
            if not inside:
                raise Stop(f"{path}: no .hea file in it")
            found += inside
        else:
            complete = path.suffix in (".hea", ".mat", ".csv") or "#" in path.name
            found.append(path if complete else path.with_name(path.name + ".hea"))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="infer.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("records", nargs="+", type=Path, help="WFDB headers, folders of them, .mat, .csv, or .hdf5#row")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of standard output")
    parser.add_argument("--annotate", metavar="EXT", help="also write the beats beside the record, as record.EXT")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="also draw the signal and what was found")
    settings, arguments = config.load(parser, argv)
    paths, inference = recordings(arguments.records), settings.inference
    if arguments.plot and len(paths) > 1:
        raise Stop("--plot draws one record; several were given")
    # the first is asked for twice where its leads choose the run
    read = lru_cache(maxsize=1)(partial(readers.read, units_per_mv=inference.units_per_mv, fs=inference.fs))
    run, trained = find_bundle(settings.run_dir, None if settings.run_dir else read(paths[0]))
    print(f"model {run} ({trained.name}); not a medical device", file=sys.stderr)
    predictions, failed = [], []
    for path in paths:
        try:
            record = read(path)
            prediction = predict_record(record, trained, run, inference.leads, inference.batch_size)
            if arguments.annotate:
                print(f"wrote {annotate(path, prediction, arguments.annotate)}", file=sys.stderr)
            if arguments.plot:
                draw(arguments.plot, record, prediction)
        except (Stop, ValueError, OSError) as error:
            if len(paths) == 1:
                raise
            failed.append(path)
            print("error: " + script.one_line(error), file=sys.stderr)
            continue
        for warning in prediction.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        predictions.append(prediction)
    sys.stdout.write(to_output(predictions, arguments.format))
    if failed:
        raise Stop(f"{len(failed)} of {len(paths)} records could not be read or do not fit the model")


if __name__ == "__main__":
    script.run(main)

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
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import config
import pqrst
import readers
import runs
from config import Stop
from data import Batch, beat_context
from readers import detect


@dataclass(frozen=True)
class Model:
    """A trained network and what its checkpoint says of it."""

    name: str
    network: nn.Module
    checkpoint: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = self.checkpoint["recipe"]
        return recipe

    @property
    def of_beats(self) -> bool:
        return bool(self.recipe["window"]["kind"] == "beat")


def load_model(run: str | Path | None, record: pqrst.Record | None = None) -> Model:
    """The network of a run.

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
            candidates = [c for c in candidates if _fits(c, record)]
            if not candidates:
                raise Stop(f"{record.name}: no run in runs/ fits its leads {', '.join(record.leads)}; see --run")
        run = candidates[0]
    path = Path(run)
    checkpoint = runs.load_checkpoint(path / "best.pt" if path.is_dir() or not path.suffix else path)
    return Model(str(run), runs.network_of(checkpoint), checkpoint)


def _fits(run: Path, record: pqrst.Record) -> bool:
    slots = runs.load_checkpoint(run / "best.pt")["recipe"]["leads"]
    return -1 not in pqrst.match_leads(slots, list(record.leads))


# ------------------------------------------------------------------------------------------------ one record


def mapped(record: pqrst.Record, recipe: dict[str, Any], mapping: str) -> tuple[dict[str, Any], list[str]]:
    """The recipe with its slots narrowed to what the mapping says, e.g. `MLII=ECG1,V1=zeros`, and what to warn of."""
    asked: dict[int, str] = {}  # slot -> lead
    warnings = []
    for pair in mapping.split(","):
        slot, equals, lead = pair.partition("=")
        if not equals:
            raise Stop(f"inference.leads {mapping!r}: expected slot=lead pairs such as MLII=ECG1,V1=zeros")
        places = [place for place, names in enumerate(recipe["leads"]) if slot in names and place not in asked]
        if not places:
            raise Stop(f"inference.leads: {slot} is in none of the model's slots {recipe['leads']}")
        if lead != "zeros" and lead not in record.leads:
            raise Stop(f"inference.leads: {record.name} has no lead {lead}, its leads are {', '.join(record.leads)}")
        asked[places[0]] = lead
        used = f"{slot} is filled with zeros" if lead == "zeros" else f"lead {lead} is used as {slot}"
        warnings.append(f"{used}, as asked")
    left = [lead for lead in record.leads if lead not in asked.values()]
    others = [place for place in range(len(recipe["leads"])) if place not in asked]
    for place, index in zip(others, pqrst.match_leads([recipe["leads"][k] for k in others], left), strict=True):
        if index < 0:
            names = "|".join(recipe["leads"][place])
            raise Stop(f"{record.name}: has leads {', '.join(record.leads)}; none fills the slot {names}")
        asked[place] = left[index]
    missing = "zeros" if "zeros" in asked.values() else recipe["missing"]
    slots = [[asked[place]] for place in range(len(recipe["leads"]))]  # no lead is called zeros
    return {**recipe, "leads": slots, "missing": missing}, warnings


def predict_record(record: pqrst.Record, model: Model, leads: str = "", batch_size: int = 512) -> dict[str, Any]:
    """What `infer.py --format json` says of one record, as a dict."""
    recipe, warnings = model.recipe, list(record.warnings)
    if leads:
        recipe, mapping_warnings = mapped(record, recipe, leads)
        warnings += mapping_warnings
    uncalibrated = [lead for lead, good in zip(record.leads, record.calibrated, strict=True) if not good]
    if uncalibrated:
        warnings.append(f"{', '.join(uncalibrated)}: not calibrated, amplitudes are in units of 200 per mV")

    result: dict[str, Any] = {
        "record": record.name,
        "fs": record.fs,
        "leads": list(record.leads),
        "duration_s": record.signal.shape[1] / record.fs,
        "model": {"run": model.name, "commit": model.checkpoint["commit"]},
        "warnings": warnings,
    }
    r_peaks = detect(record) if model.of_beats else None
    prepared = pqrst.prepare([record], recipe, None if r_peaks is None else [r_peaks])
    warnings += [text for _, _, text in prepared.warnings if text not in warnings]
    warnings += [text for _, _, text in prepared.errors]
    if r_peaks is None and len(prepared.rows) == 0:
        raise Stop(warnings[-1])
    context = beat_context(r_peaks if r_peaks is not None else np.zeros(0, np.int64), record.fs, recipe["context"])
    context = context[prepared.index] if r_peaks is not None else np.zeros((len(prepared.rows), 0), np.float32)
    scores = _scores(prepared, context, model, batch_size)
    classes = model.checkpoint["classes"]
    if r_peaks is None:
        probability = scores.mean(axis=0)  # over the windows of the record
        decided = probability >= np.array(model.checkpoint["thresholds"])
        if model.checkpoint["task"] == "multiclass":
            decided = np.arange(len(classes)) == probability.argmax()
        result["findings"] = [
            {"class": name, "probability": float(p), "threshold": float(t), "present": bool(d)}
            for name, p, t, d in zip(classes, probability, model.checkpoint["thresholds"], decided, strict=True)
        ]
        return result
    best = scores.argmax(axis=1)
    result["beats"] = [
        {
            "sample": int(sample),
            "time_s": float(sample / record.fs),
            "class": classes[k],
            "probability": float(row[k]),
        }
        for sample, k, row in zip(prepared.start, best, scores, strict=True)
    ]
    counts = Counter(beat["class"] for beat in result["beats"])
    span_s = (r_peaks[-1] - r_peaks[0]) / record.fs if len(r_peaks) > 1 else 0.0
    result["summary"] = {
        "beats": len(result["beats"]),
        "counts": {name: counts[name] for name in classes},
        "mean_hr_bpm": round(60 * (len(r_peaks) - 1) / span_s, 1) if span_s else None,
    }
    return result


def _scores(
    prepared: pqrst.Prepared, context: NDArray[np.float32], model: Model, batch_size: int
) -> NDArray[np.float32]:
    n = len(prepared.rows)
    labels = np.zeros((n, len(model.checkpoint["classes"])), np.uint8)
    pieces = [np.zeros((0, labels.shape[1]), np.float32)]
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n))
        batch = Batch(prepared.rows[rows], labels[rows], context[rows], prepared.valid[rows], rows)
        pieces.append(runs.logits_of(model.network, batch))
    return runs.scores_from(np.concatenate(pieces), model.checkpoint["task"])


def predict(
    record: str | Path | pqrst.Record, run: str | Path | None = None, leads: str = "", batch_size: int = 512
) -> dict[str, Any]:
    """Beats or findings of one record.

    Parameters
    ----------
    record : path of a recording, as readers.read takes it, or a pqrst.Record
    run : run folder, checkpoint file or `latest`; None takes the newest run in runs/ that fits
    leads : the lead to use for each slot, e.g. `MLII=ECG1,V1=zeros`
    batch_size : rows at a time

    Returns
    -------
    dict with `record`, `fs`, `leads`, `duration_s`, `model`, `warnings`, and `beats` with `summary`, or `findings`.

    Raises
    ------
    config.Stop, ValueError, FileNotFoundError
        What the command line prints in one line: unreadable records, leads that do not fit, no checkpoint.
    """
    opened = record if isinstance(record, pqrst.Record) else readers.read(record)
    return predict_record(opened, load_model(run, opened), leads, batch_size)


# ------------------------------------------------------------------------------------------------ output


def write(results: list[dict[str, Any]], output_format: str) -> None:
    """The predictions on standard output."""
    if output_format == "json":
        for result in results:
            print(json.dumps(result, indent=1 if len(results) == 1 else None))
    elif output_format == "csv":
        rows = [{"record": r["record"], **row} for r in results for row in r.get("beats", r.get("findings", []))]
        fields = ["record", "sample", "time_s", "class", "probability"]
        if results and "findings" in results[0]:
            fields = ["record", "class", "probability", "threshold", "present"]
        writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        print("\n\n".join(as_text(result) for result in results))


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['record']}: {result['duration_s']:.1f} s at {result['fs']:g} Hz, leads {', '.join(result['leads'])}"
    ]
    if "findings" in result:
        lines += [
            f"  {f['class']:<12} {f['probability']:6.3f}  {'present' if f['present'] else '-'}"
            for f in result["findings"]
        ]
        return "\n".join(lines)
    lines.append(f"{'time (s)':>10}  class  probability")
    lines += [f"{b['time_s']:10.3f}  {b['class']:<5}  {b['probability']:11.3f}" for b in result["beats"]]
    summary = result["summary"]
    counts = ", ".join(f"{name} {n:,}" for name, n in summary["counts"].items())
    rate = f"{summary['mean_hr_bpm']:.0f} beats per minute" if summary["mean_hr_bpm"] else "rate unknown"
    lines.append(f"{summary['beats']:,} beats: {counts}; mean {rate}")
    return "\n".join(lines)


def annotate(path: Path, result: dict[str, Any], extension: str) -> Path:
    """Write the beats as a WFDB annotation file beside the record; a file that is there is not overwritten."""
    import wfdb  # slow to import, and only this needs it

    target = path.with_suffix(f".{extension}")
    if "#" in path.name:
        raise Stop(f"--annotate {extension}: {path} is one of many recordings in a file; none can stand beside it")
    if "beats" not in result:
        raise Stop(f"--annotate {extension}: {result['model']['run']} finds no beats; it is a model of whole records")
    if not extension.isalpha():
        raise Stop(f"--annotate {extension}: an annotator's name is made of letters")
    if target.exists():
        raise Stop(f"{target}: is there already; choose another name with --annotate")
    if not result["beats"]:
        raise Stop(f"{path}: no beats found, nothing to annotate")
    samples = np.array([beat["sample"] for beat in result["beats"]])
    symbols = [beat["class"] for beat in result["beats"]]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # beside the target: renaming is then atomic
        wfdb.wrann(target.stem, extension, samples, symbols, fs=result["fs"], write_dir=folder)
        (Path(folder) / target.name).replace(target)
    return target


def recordings(records: Sequence[Path]) -> list[Path]:
    """The recordings named, folders replaced by the headers in them."""
    found: list[Path] = []
    for path in records:
        if path.is_dir():
            inside = sorted(path.glob("*.hea"))
            if not inside:
                raise Stop(f"{path}: no .hea file in it")
            found += inside
        else:
            known = path.suffix in (".hea", ".mat", ".csv") or "#" in path.name
            found.append(path if known else path.with_name(path.name + ".hea"))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="infer.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("records", nargs="+", type=Path, help="WFDB headers, folders of them, .mat, .csv, or .hdf5#row")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of standard output")
    parser.add_argument("--annotate", metavar="EXT", help="also write the beats beside the record, as record.EXT")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="also draw the signal and what was found")
    settings, arguments = config.load(parser, argv)
    paths = recordings(arguments.records)
    if arguments.plot and len(paths) > 1:
        raise Stop("--plot draws one record; several were given")
    how = settings.inference
    # the first is asked for twice where its leads choose the run
    read = lru_cache(maxsize=1)(partial(readers.read, units_per_mv=how.units_per_mv, fs=how.fs))
    model = load_model(settings.run, None if settings.run else read(paths[0]))
    print(f"model {model.name} ({model.checkpoint['model_name']}); not a medical device", file=sys.stderr)
    results, failed = [], []
    for path in paths:
        try:
            record = read(path)
            result = predict_record(record, model, how.leads, how.batch_size)
            if arguments.annotate:
                print(f"wrote {annotate(path, result, arguments.annotate)}", file=sys.stderr)
            if arguments.plot:
                import plots

                plots.save_prediction(record.signal, record.fs, list(record.leads), result, arguments.plot)
        except (Stop, ValueError, OSError) as error:
            if len(paths) == 1:
                raise
            failed.append(path)
            print("error: " + config.one_line(error), file=sys.stderr)
            continue
        for warning in result["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)
        results.append(result)
    write(results, arguments.format)
    if failed:
        raise Stop(f"{len(failed)} of {len(paths)} records could not be read or do not fit the model")


if __name__ == "__main__":
    config.script(main)

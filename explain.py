"""Recording -> what speaks for a class: each lead, each moment, each number beside the signal.

    python explain.py record.hea                                    # the most likely class of what is least certain
    python explain.py record.hea --run runs/demo --class AF --plot out.pdf --bars out.png
    python explain.py 119.hea --run pretrained/beats.pt --at 12.5   # the beat at 12.5 s
    python explain.py record.hea --run runs/demo --method occlusion --format json

Attributions are in log odds and sum to what the row says more than its baseline, a flat line with typical numbers; the
last line tells how exactly. The picture shades the sheet: green speaks for the class, purple against it.
An attribution shows what a network looks at. It does not show that this is right. Not a medical device.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bundle
import config
import importance
import infer
import pqrst
import readers
import runs
import script
import sheet
from attributions import METHODS, Attribution, attribute, typical_of
from batches import Batch
from bundle import Bundle
from data import Dataset
from infer import Fed
from recipe import Recipe
from script import Stop
from sheet import Shade

N_REFERENCES = 16  # training rows that expected gradients compare with
SHADE_S = 0.04  # of a shaded stretch
BATCH_SIZE = 512
MOST_NUMBERS = 10  # beside the signal, that are printed


def explain(
    fed: Fed,
    trained: Bundle,
    name: str | None = None,
    method: str = "integrated",
    row: int | None = None,
    references: NDArray[Any] | None = None,
) -> Attribution:
    """Tell what speaks for a class in a recording.

    Parameters
    ----------
    fed : what the network is fed of the recording: `infer.feed(readers.read("record.hea"), trained)`
    trained : network, recipe and classes
    name : a class; None: the most likely one of the row
    method : one of METHODS
    row : which window or beat, as infer.py finds them. None: the one that speaks most for the class; with no class
        either, the window or beat that is least certain
    references : (R, L, T) rows that the method `expected` compares with

    Returns
    -------
    The attributions of one row, in log odds. The numbers beside its signal are compared with the median row of the
    record.

    Raises
    ------
    Stop, ValueError
        A record without rows, an unknown class or method, no such row, no references.
    """
    rows, valid, context = fed.prepared.rows, fed.prepared.valid, fed.context
    if not len(rows):
        raise Stop(f"{fed.record.name}: no beats found, nothing to explain")
    if row is not None and not 0 <= row < len(rows):
        raise Stop(f"{fed.record.name}: row {row}: must be 0 to {len(rows) - 1}")
    if name is not None and name not in trained.classes:
        raise Stop(f"class {name}: the model has {', '.join(trained.classes)}{script.nearest(name, trained.classes)}")
    _, logits = bundle.score(trained, infer.batches_of(fed.prepared, context, len(trained.classes), BATCH_SIZE))
    _, scores = bundle.pool(logits, np.arange(len(rows)), valid[:, 1] - valid[:, 0], trained.task)
    if row is None:
        row = int(scores.max(axis=1).argmin() if name is None else scores[:, trained.classes.index(name)].argmax())
    name = name or trained.classes[int(scores[row].argmax())]
    one = slice(row, row + 1)
    batch = Batch(rows[one], None, context[one], valid[one], np.array([row]))
    found = attribute(trained, batch, name, typical_of(context), method, references)
    return replace(found, start_s=start_of(fed, row))


def start_of(fed: Fed, row: int) -> float:
    """Return where a row begins in its record, s; of a beat near the start of the record it is below 0."""
    start_s = float(fed.prepared.start[row]) / fed.record.fs
    if not fed.recipe.of_beats:
        return start_s
    window = fed.recipe.window
    return start_s - (fed.recipe.window_s / 2 if window.before_s is None else window.before_s)


def row_at(fed: Fed, time_s: float) -> int:
    """Return the beat nearest to a time of the record, or the window that it lies in, s."""
    starts = fed.prepared.start / fed.record.fs  # of a beat its R peak
    duration_s = fed.record.signal.shape[1] / fed.record.fs
    if not 0 <= time_s <= duration_s:
        raise Stop(f"--at {time_s:g}: {fed.record.name} lasts {duration_s:.1f} s")
    if fed.recipe.of_beats:
        return int(np.abs(starts - time_s).argmin()) if len(starts) else 0
    return int(np.flatnonzero(starts <= time_s)[-1])


def references_of(run: Path, recipe: Recipe) -> NDArray[Any]:
    """Draw training rows of a run, (R, L, T), that expected gradients compare with.

    Raises
    ------
    Stop
        The rows are not there, or have been prepared anew with another recipe than the network's.
    """
    settings = runs.settings_of(run)
    dataset = Dataset(*settings.data_dirs)
    if changes := recipe.differences(dataset.recipe):
        raise Stop(f"--method expected: {dataset.folder} was prepared with another recipe ({'; '.join(changes)})")
    data = settings.data
    rows = dataset.splits(data.train, data.validation, data.test, needed=["train"])["train"]
    chosen = np.random.default_rng(0).choice(rows, min(N_REFERENCES, len(rows)), replace=False)
    return dataset.signals(np.sort(chosen))


# ------------------------------------------------------------------------------------------------ output


def to_text(found: Attribution) -> str:
    """Return the attributions for people: leads, the numbers that count most, the sum."""
    lines = [
        f"{found.class_name}: log odds {found.output:.2f}, of a flat line with typical numbers {found.baseline:.2f}",
        f"{'lead':<24} {'adds':>8}  share",
    ]
    for lead, adds, share in zip(found.leads, found.per_lead, found.share, strict=True):
        lines.append(f"{lead:<24} {adds:8.3f}  {share:5.1%}")
    sizes = sorted(found.number_share.items(), key=lambda pair: -pair[1])[:MOST_NUMBERS]
    lines += [f"{name:<24} {found.numbers[name]:8.3f}  {share:5.1%}" for name, share in sizes if share]
    last = "occluded one by one, these need not sum up" if found.method == "occlusion" else "of the difference missing"
    return "\n".join([*lines, f"{found.error:.2%} {last}; not a medical device"])


def to_json(found: Attribution, record: str) -> str:
    """Return one JSON object, with the attribution of every sample."""
    tree = {
        "record": record,
        "class": found.class_name,
        "method": found.method,
        "output": found.output,
        "baseline": found.baseline,
        "error": found.error,
        "fs": found.fs,
        "start_s": found.start_s,
        "leads": [
            {"lead": lead, "adds": adds, "share": share, "values": values}
            for lead, adds, share, values in zip(
                found.leads, found.per_lead.tolist(), found.share.tolist(), found.values.tolist(), strict=True
            )
        ],
        "numbers": found.numbers,
    }
    return json.dumps(tree)


def shades_of(found: Attribution, fed: Fed) -> list[Shade]:
    """Return what sheet.save_sheet shades: of each lead its attributions in stretches of SHADE_S, the strongest 1."""
    step = max(1, round(SHADE_S * found.fs))
    firsts = np.arange(0, found.values.shape[1], step)
    sums = np.add.reduceat(found.values, firsts, axis=1)  # (L, T) -> (L, T / step)
    sums /= np.abs(sums).max() or 1.0
    places = pqrst.match_leads(fed.recipe.leads, list(fed.record.leads))
    return [
        Shade(int(lead), found.start_s, step / found.fs, sums[slot]) for slot, lead in enumerate(places) if lead >= 0
    ]


def draw(path: Path, found: Attribution, fed: Fed) -> None:
    """Draw the ten seconds around what is explained, shaded by what speaks for the class and against it."""
    record = fed.record
    title = (
        f"{Path(record.name).name}: what speaks for {found.class_name} (green) and against it (purple), "
        f"log odds {found.output:.2f}. It shows what the network looks at, not that this is right."
    )
    middle_s = found.start_s + found.values.shape[1] / found.fs / 2
    sheet.save_sheet(path, record, title, sheet.rows_at(record, middle_s), shades=shades_of(found, fed))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="explain.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("record", type=Path, help="a recording in any format")
    parser.add_argument("--class", dest="name", metavar="NAME", help="the most likely one where none is given")
    parser.add_argument("--method", choices=METHODS, default="integrated", help="how attributions are computed")
    parser.add_argument(
        "--at", type=float, metavar="S", help="explain the beat or window at this time of the record, s"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of standard output")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the record shaded: png, svg or pdf")
    parser.add_argument(
        "--bars", metavar="FILE", type=Path, help="draw a bar for each lead and number: png, svg or pdf"
    )
    settings, arguments = config.load(parser, argv)
    inference = settings.inference
    for picture in (arguments.plot, arguments.bars):
        if picture and picture.suffix[1:] not in infer.PICTURES:
            raise Stop(f"{picture}: a picture is one of {', '.join(infer.PICTURES)}")
    if arguments.plot and arguments.plot == arguments.bars:
        raise Stop(f"--plot {arguments.plot} and --bars {arguments.bars}: give each a file of its own")
    record = readers.read(readers.complete(arguments.record), units_per_mv=inference.units_per_mv, fs=inference.fs)
    run, trained = infer.find_bundle(settings.run_dir, record)
    print(f"model {run} ({trained.name}); not a medical device", file=sys.stderr)
    references = references_of(Path(run), trained.recipe) if arguments.method == "expected" else None
    fed = infer.feed(record, trained, inference.leads)
    for warning in fed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    row = None if arguments.at is None else row_at(fed, arguments.at)
    found = explain(fed, trained, arguments.name, arguments.method, row, references)
    if arguments.plot:
        draw(arguments.plot, found, fed)
    if arguments.bars:
        importance.draw(importance.table_of([found]), arguments.bars)
    print(to_json(found, record.name) if arguments.format == "json" else to_text(found))


if __name__ == "__main__":
    script.run(main)

"""Recordings -> beats or findings.

    python infer.py record.hea                                # with the newest run that fits, or the bundled model
    python infer.py 119.hea --run runs/mitdb --format json
    python infer.py folder/ --recursive --run runs/mitdb --format csv > beats.csv
    python infer.py 119.hea --run runs/mitdb --annotate qrs --plot 119.png
    python infer.py folder/ --run runs/mitdb --annotate qrs --plot png --out results/
    python infer.py 00001.hea --plot sheet.pdf --layout 6x2 --gain 20
    python infer.py 820.hea --run runs/mitdb --inference.leads MLII=ECG1,V1=zeros

The prediction goes to standard output as it comes, everything else to standard error. The signal passes through the
recipe in the checkpoint, by the code that prepared the training data; of a record longer than the network's window all
windows are pooled. R peaks are detected, never read from annotations.
Not a medical device: for research and teaching only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import bundle
import config
import pqrst
import readers
import runs
import script
from batches import Batch, scoring_batches
from beats import context_of, context_of_record, detect, doubts, leads_of
from bundle import Bundle
from decide import decide
from formats import said
from prediction import Prediction, columns_of
from recipe import Recipe, paddings
from script import Stop
from simulate import is_simulated

if TYPE_CHECKING:
    from sheet import Mark

PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "beats.pt"
LEAST_GAP_S = 0.5  # without a signal, so that no RR interval is told across it
PICTURES = ("png", "svg", "pdf")

# ------------------------------------------------------------------------------------------------ which network


def find_bundle(
    run: str | Path | None,
    record: pqrst.Record | None = None,
    root: Path = Path("runs"),
    load: Callable[[Path], Bundle] = bundle.load,
) -> tuple[str, Bundle]:
    """Load the network of a run, and name the run.

    Parameters
    ----------
    run : a run folder, a checkpoint file, `latest`, or None: the newest run whose slots fit the record's leads, but
        never one of the simulated demo for a record that simulate.py did not make; where none fits, the bundled model
        of beats
    record : the record to fit, where run is None
    root : folder of the runs
    load : reads a checkpoint; a service keeps what it has read
    """
    if run is None and record is not None:
        return _fitting(runs.newest(root), record, load)
    if run is None or run == "latest":
        candidates = runs.newest(root)
        if not candidates:
            raise Stop(f"no run in {root}/: train one (python train.py) or name one with --run_dir")
        run = candidates[0]
    return str(run), load(runs.checkpoint_of(run))


def _fitting(candidates: Sequence[Path], record: pqrst.Record, load: Callable[[Path], Bundle]) -> tuple[str, Bundle]:
    """Load the first run that fits a record, or the bundled model."""
    for folder in candidates:
        try:
            candidate = load(runs.checkpoint_of(folder))
        except Stop as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        if -1 in pqrst.match_leads(candidate.recipe.leads, list(record.leads)):
            continue
        if candidate.origin.data == "demo" and not is_simulated(record.comments):
            continue
        return str(folder), candidate
    return PRETRAINED.name, load(PRETRAINED)


def fill_slots(record: pqrst.Record, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Let other ECG leads stand in slots that no lead fills by its name, in their order, and say so in warnings.

    Only of beats, and where the recipe does without leads: such a network has learnt from leads of any place.
    """
    places = pqrst.match_leads(recipe.leads, list(record.leads))
    if not recipe.of_beats or recipe.missing != "zeros" or -1 not in places:
        return recipe, []
    left = [lead for lead in leads_of(record) if lead not in places]
    slots, warnings = list(recipe.leads), []
    for slot, place in enumerate(places):
        if place < 0 and left and recipe.leads[slot] != ("zeros",):
            lead = record.leads[left.pop(0)]
            slots[slot] = (lead,)
            warnings.append(f"lead {lead} stands for {recipe.leads[slot][0]}")
    return recipe.model_copy(update={"leads": tuple(slots)}), warnings


def map_leads(record: pqrst.Record, recipe: Recipe, mapping: str) -> tuple[Recipe, list[str]]:
    """Narrow the recipe's slots to what the mapping says, e.g. `MLII=ECG1,V1=zeros`, and say so in warnings."""
    asked: dict[int, str] = {}  # slot -> lead
    warnings = []
    for pair in mapping.split(","):
        slot, equals, lead = pair.partition("=")
        if not equals:
            raise Stop(f"inference.leads {mapping!r}: expected slot=lead pairs such as MLII=ECG1,V1=zeros")
        places = [place for place, names in enumerate(recipe.leads) if slot in names and place not in asked]
        if not places and any(slot in names for names in recipe.leads):
            raise Stop(f"inference.leads {mapping!r}: gives the slot of {slot} two leads")
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


def choose_leads(record: pqrst.Record, recipe: Recipe, mapping: str = "") -> tuple[Recipe, list[str]]:
    """Say which leads fill the recipe's slots: as the mapping says, else by their names; with warnings."""
    return map_leads(record, recipe, mapping) if mapping else fill_slots(record, recipe)


# ------------------------------------------------------------------------------------------------ one record


def predict(
    record: str | Path | pqrst.Record | NDArray[Any],
    run: str | Path | None = None,
    leads: str | Sequence[str] = "",
    fs: float | None = None,
    units: str | Sequence[str] = "mV",
) -> Prediction:
    """Predict beats or findings of one record.

    Parameters
    ----------
    record : path of a recording, as readers.read takes it; a pqrst.Record; or an array (L, T), or (T,) of one lead
    run : run folder, checkpoint file or `latest`; None takes the newest run in runs/ that fits
    leads : of an array the names of its L leads; of a recording the lead to use for each slot, e.g.
        `MLII=ECG1,V1=zeros`
    fs : rate of an array, or of a file that does not tell it or tells a wrong one, Hz
    units : of an array, one for all leads or one for each: mV, uV, V

    Raises
    ------
    script.Stop, ValueError, FileNotFoundError
        What the command line prints in one line: unreadable records, leads that do not fit, no checkpoint.
    """
    if not isinstance(record, str | Path | pqrst.Record):
        opened, mapping = _from_array(record, leads, fs, units), ""
    elif units != "mV":
        raise Stop("units: are told of an array; readers.read(..., units_per_mv=1000) tells them of a recording")
    elif not isinstance(leads, str):
        raise Stop("leads: are named of an array; of a recording say which to use, such as MLII=ECG1,V1=zeros")
    elif isinstance(record, str | Path):
        opened, mapping = readers.read(record, fs=fs), leads
    elif fs is not None:
        raise Stop(f"fs: {record.name} has its own, {record.fs:g} Hz")
    else:
        opened, mapping = record, leads
    name, trained = find_bundle(run, opened)
    return predict_record(opened, trained, name, mapping)


def _from_array(
    signal: NDArray[Any], leads: str | Sequence[str], fs: float | None, units: str | Sequence[str]
) -> pqrst.Record:
    """Make a record of an array (L, T) or (T,)."""
    signal = np.atleast_2d(np.asarray(signal))
    names = [leads] if isinstance(leads, str) else list(leads)
    if fs is None or not all(names):
        raise Stop("an array needs fs (Hz) and leads (the name of each)")
    if signal.dtype.kind in "iu":
        signal = signal.astype(np.float64)
    each = [units] * len(names) if isinstance(units, str) else list(units)
    return pqrst.Record(signal, fs, names, each, "array")


class Fed(NamedTuple):
    """What a network is fed of one record, with what `prediction_of` needs besides its logits."""

    record: pqrst.Record
    recipe: Recipe  # with the leads that fill its slots
    prepared: pqrst.Prepared
    context: NDArray[np.float32]  # (N, F) numbers beside each row
    warnings: tuple[str, ...]


def predict_record(
    record: pqrst.Record, trained: Bundle, run: str, leads: str = "", batch_size: int = 512
) -> Prediction:
    """Predict beats or findings of one record with a network that is loaded already."""
    fed = feed(record, trained, leads)
    batches = batches_of(fed.prepared, fed.context, len(trained.classes), batch_size)
    return prediction_of(fed, bundle.score(trained, batches)[1], trained, run)


def feed(record: pqrst.Record, trained: Bundle, leads: str = "") -> Fed:
    """Send a record through the recipe of a network.

    Raises
    ------
    Stop, ValueError
        Leads that do not fit, or a record of which no row can be made.
    """
    recipe, said_of_leads = choose_leads(record, trained.recipe, leads)
    warnings = [*record.warnings, *said_of_leads]
    uncalibrated = [lead for lead, good in zip(record.leads, record.calibrated, strict=True) if not good]
    if uncalibrated:
        warnings.append(f"{', '.join(uncalibrated)}: not calibrated, amplitudes are in units of 200 per mV")
    places = pqrst.match_leads(recipe.leads, list(record.leads))
    absent = [slot[0] for slot, place in zip(recipe.leads, places, strict=True) if place < 0 and slot != ("zeros",)]
    if absent and recipe.missing == "zeros":
        warnings.append(f"leads {', '.join(absent)} are missing: {len(absent)} of {len(recipe.leads)} are zeros")
    r_peaks = detect(record) if recipe.of_beats else None
    context = None if r_peaks is None else context_of(recipe, r_peaks, record.fs, lambda: record)
    if context is not None:
        warnings += doubts(recipe, context)
    prepared, of_rows = rows_of(record, recipe, r_peaks, context)
    warnings += [text for _, _, text in prepared.warnings if text not in warnings]
    warnings += [text for _, _, text in prepared.errors]
    n_filled, n_rows = prepared.lead_mask.sum(axis=0), len(prepared.rows)  # (L,)
    for place, n in zip(places, n_filled, strict=True):
        if place >= 0 and n < n_rows:
            lead = record.leads[place]
            warnings.append(
                f"lead {lead} has too few valid samples in {n_rows - n:,} of {n_rows:,} rows, which have zeros for it"
            )
    warnings += [f"{record.name}: {text}" for _, text in paddings(prepared, recipe)]
    if r_peaks is None and not len(prepared.rows):
        raise Stop(warnings[-1])
    return Fed(record, recipe, prepared, of_rows, tuple(warnings))


def prediction_of(fed: Fed, logits: NDArray[np.float32], trained: Bundle, run: str) -> Prediction:
    """Say what the logits (N, K) of a record's rows mean."""
    record, prepared, warnings = fed.record, fed.prepared, list(fed.warnings)
    of_beats, n_rows = trained.recipe.of_beats, len(prepared.rows)
    logits = logits.reshape(-1, len(trained.classes))
    units = np.arange(n_rows) if of_beats else np.zeros(n_rows, np.int64)  # the windows of one record are one
    inside = prepared.valid[:, 1] - prepared.valid[:, 0]
    _, scores = bundle.pool(logits, units, inside, trained.task)
    decided = decide(scores, trained.task, trained.thresholds)
    if not of_beats and n_rows > 1:
        of_windows = bundle.pool(logits, np.arange(n_rows), inside, trained.task)[1]
        warnings += _said_of_windows(of_windows, decided[0], prepared.start / record.fs, trained)
    return Prediction(
        record=record.name,
        fs=record.fs,
        leads=tuple(record.leads),
        duration_s=record.signal.shape[1] / record.fs,
        run=run,
        origin=trained.origin,
        warnings=tuple(warnings),
        classes=trained.classes,
        scores=scores,
        decided=decided,
        thresholds=trained.thresholds,
        samples=prepared.start if of_beats else None,
        gaps=gaps_of(record) if of_beats else (),
    )


def rows_of(
    record: pqrst.Record,
    recipe: Recipe,
    centers: NDArray[np.int64] | None,
    context: NDArray[np.float32] | None,
) -> tuple[pqrst.Prepared, NDArray[np.float32]]:
    """Send a record through the recipe: its N rows, and the numbers (N, F) beside them.

    Parameters
    ----------
    record : what is read
    recipe : of the network
    centers, context : for beats, (M,) samples and (M, F) numbers about each; rows may be fewer. None: rows of a record
    """
    prepared = pqrst.prepare([record], recipe.chain(), None if centers is None else [centers])
    if context is None:
        of_record = context_of_record(recipe, lambda: record)
        return prepared, np.broadcast_to(of_record, (len(prepared.rows), len(of_record)))
    return prepared, context[prepared.index]


def logits_of(
    record: pqrst.Record,
    trained: Bundle,
    centers: NDArray[np.int64] | None,
    context: NDArray[np.float32] | None,
    batch_size: int,
) -> tuple[pqrst.Prepared, NDArray[np.float32]]:
    """Send a record through the recipe, as `rows_of` does, and the network: its rows, and (N, K) logits."""
    prepared, of_rows = rows_of(record, trained.recipe, centers, context)
    _, logits = bundle.score(trained, batches_of(prepared, of_rows, len(trained.classes), batch_size))
    return prepared, logits.reshape(-1, len(trained.classes))


def _said_of_windows(
    scores: NDArray[np.float32], decided: NDArray[np.uint8], start_s: NDArray[np.float64], trained: Bundle
) -> list[str]:
    """Say that windows (N, K) were pooled, and which classes some of them have that the record as a whole has not."""
    here = decide(scores, trained.task, trained.thresholds)
    said = [f"{len(scores):,} windows of {trained.recipe.window_s:g} s are pooled"]
    for k in np.flatnonzero(here.any(axis=0) & (decided == 0)):
        highest = scores[:, k].argmax()
        said.append(
            f"{trained.classes[k]} is found in {here[:, k].sum():,} of the windows, not in the record as a whole; "
            f"most in that at {start_s[highest]:.1f} s, {scores[highest, k]:.2f}"
        )
    return said


def batches_of(
    prepared: pqrst.Prepared, context: NDArray[np.float32], n_classes: int, batch_size: int
) -> Iterator[Batch]:
    """Give the rows of a record in batches, without labels."""
    for rows in scoring_batches(np.arange(len(prepared.rows)), batch_size):
        labels = np.zeros((len(rows), n_classes), np.uint8)
        yield Batch(prepared.rows[rows], labels, context[rows], prepared.valid[rows], rows)


def gaps_of(record: pqrst.Record) -> tuple[tuple[int, int], ...]:
    """List the stretches [first, last) of LEAST_GAP_S or longer in which no lead has a valid sample."""
    invalid = np.isnan(record.signal).all(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], invalid, [False]]).astype(np.int8)))
    pairs = ((int(first), int(last)) for first, last in edges.reshape(-1, 2))
    return tuple((first, last) for first, last in pairs if last - first >= LEAST_GAP_S * record.fs)


# ------------------------------------------------------------------------------------------------ output


class Output(NamedTuple):
    """What to write for each record, and where; made before any record is read."""

    format: str  # of standard output: text | json | csv
    beats: bool  # as text, a line for each beat
    one: bool  # only one record was asked for
    annotations: dict[Path, Path]  # recording -> file, empty where none are wanted
    pictures: dict[Path, Path]
    layout: str | None  # of the pictures
    speed: float | None  # mm/s, and gain, mm/mV; None: as usual
    gain: float | None


def plan(paths: Sequence[Path], arguments: argparse.Namespace, trained: Bundle) -> Output:
    """Name the files to write; Stop where one cannot be written, before any work."""
    extension, picture, out = arguments.annotate, arguments.plot, arguments.out
    annotations: dict[Path, Path] = {}
    pictures: dict[Path, Path] = {}
    if out and not extension and (not picture or picture.suffix):
        raise Stop("--out FOLDER: is for the files of --annotate and --plot png, svg or pdf; give one of these")
    if extension:
        if not extension.isascii() or not extension.isalpha():
            raise Stop(f"--annotate {extension}: an annotator's name is made of letters")
        if not trained.recipe.of_beats:
            raise Stop(f"--annotate {extension}: the model finds no beats; it is one of whole records")
        if strange := symbols_missing(trained.classes):
            raise Stop(
                f"--annotate {extension}: WFDB has no symbol for {', '.join(strange)}; --format csv has all classes"
            )
        annotations = {path: _beside(path, extension, out) for path in paths}
        for path, target in annotations.items():
            if readers.file_and_row(path)[1] is not None and not out:
                raise Stop(f"{path}: is one of many recordings in a file, none can stand beside it; give --out FOLDER")
            if target.exists():
                raise Stop(f"{target}: already exists; choose another name with --annotate, or --out FOLDER")
    if picture:
        kind = picture.suffix[1:] or picture.name
        if kind not in PICTURES:
            raise Stop(f"--plot {picture}: a picture is one of {', '.join(PICTURES)}{script.nearest(kind, PICTURES)}")
        if picture.suffix and len(paths) > 1:
            raise Stop(f"--plot {picture}: draws one record, several were given; --plot {kind} draws one file for each")
        pictures = {path: picture if picture.suffix else _beside(path, kind, out) for path in paths}
    for targets in (annotations, pictures):
        times = Counter(targets.values())
        for target, n in times.most_common(1):
            if n > 1:
                raise Stop(f"{target}: would be written for {n} records; predict their folders one by one")
    if both := set(annotations.values()) & set(pictures.values()):
        raise Stop(f"{min(both)}: would be written by --annotate and by --plot; choose another name with --annotate")
    layout, speed, gain = arguments.layout, arguments.speed, arguments.gain
    if not picture and not layout is speed is gain is None:
        raise Stop("--layout, --speed and --gain: are for the pictures of --plot; give it too")
    if layout is not None:
        from sheet import LAYOUTS

        if layout not in LAYOUTS:
            raise Stop(f"--layout {layout}: must be one of {', '.join(LAYOUTS)}")
    for flag, value in (("--speed", speed), ("--gain", gain)):
        if value is not None and not 1 <= value <= 200:
            raise Stop(f"{flag} {value:g}: must be 1 to 200 mm")
    for folder in {target.parent for target in (*annotations.values(), *pictures.values())}:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise Stop(f"{folder}: cannot be written to; give --out FOLDER")
    return Output(arguments.format, arguments.beats, len(paths) == 1, annotations, pictures, layout, speed, gain)


def symbols_missing(classes: Sequence[str]) -> list[str]:
    """Return the classes that are no symbol of a WFDB annotation: it would hold a comment in place of such a beat."""
    from wfdb.io.annotation import ann_label_table  # slow to import, and only annotations need it

    known = set(ann_label_table["symbol"])
    return [name for name in classes if name not in known]


def _beside(path: Path, suffix: str, out: Path | None) -> Path:
    """Return the file of a recording with this suffix, beside it or in a folder of its own."""
    file, row = readers.file_and_row(path)
    name = f"{file.stem}.{suffix}" if row is None else f"{file.stem}-{row}.{suffix}"
    return (out or path.parent) / name


def to_output(prediction: Prediction, output: Output, number: int) -> str:
    """Return what goes to standard output for one prediction, the `number`-th."""
    if output.format == "json":
        return prediction.to_json(1 if output.one else None) + "\n"
    if output.format == "csv":
        return prediction.to_csv(header=False)
    return ("\n" if number else "") + prediction.to_text(output.beats) + "\n"


def annotate(target: Path, prediction: Prediction, fs: float) -> None:
    """Write the beats as a WFDB annotation file, whole; `fs`: the rate that its header gives their samples, Hz."""
    import wfdb  # slow to import, and only this needs it

    samples, symbols = prediction.annotation()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # beside the target: renaming is then atomic
        wfdb.wrann(target.stem, target.suffix[1:], samples, symbols, fs=fs, write_dir=folder)
        (Path(folder) / target.name).replace(target)


def draw(path: Path, record: pqrst.Record, prediction: Prediction, output: Output) -> None:
    """Draw the record with what was found in it: of beats strips of a lead, of findings all leads, or as asked."""
    import sheet  # slow to import, and only this needs it

    strips = prediction.samples is not None and output.layout is None
    rows = sheet.strips_of(record, prediction.moments()) if strips else sheet.rows_of(record, output.layout)
    speed, gain = output.speed or sheet.SPEED, output.gain or sheet.GAIN
    sheet.save_sheet(path, record, prediction.title(), rows, marks_of(prediction), speed=speed, gain=gain)


def marks_of(prediction: Prediction) -> list[Mark]:
    """Return the beats as a sheet marks them; none of findings."""
    from sheet import Mark

    if prediction.samples is None:
        return []
    beats = zip(prediction.samples.tolist(), prediction.beat_classes.tolist(), strict=True)
    return [Mark(sample, k, prediction.classes[k]) for sample, k in beats]


# ------------------------------------------------------------------------------------------------ the script


def recordings(named: Sequence[Path], recursive: bool) -> list[Path]:
    """Return the recordings named, folders and HDF5 files replaced by what is in them."""
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            inside = readers.below(path, recursive)
            if not inside:
                deeper = "" if recursive else " (--recursive looks into the folders below)"
                raise Stop(f"{path}: no recording in it: {', '.join(readers.SUFFIXES)}{deeper}")
            found += inside
        elif path.suffix.lower() in readers.HDF5 and path.is_file():
            found += readers.rows_of(path)
        else:
            found.append(readers.complete(path))
    return list(dict.fromkeys(found))


def first_readable(paths: Sequence[Path], read: Callable[[Path], pqrst.Record]) -> pqrst.Record:
    """Read the first recording that can be read; where none can, the error is that of the last."""
    for path in paths[:-1]:
        with suppress(ValueError, OSError):
            return read(path)
    return read(paths[-1])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="infer.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "records", nargs="+", type=Path, help="recordings in any format, rows of HDF5 files (.hdf5#row), folders"
    )
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of standard output")
    parser.add_argument("--beats", action="store_true", help="as text, also print a line for each beat")
    parser.add_argument("--recursive", action="store_true", help="also the recordings in folders of a folder")
    parser.add_argument("--annotate", metavar="EXT", help="also write the beats beside the record, as record.EXT")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw the record; png, svg or pdf: one for each")
    parser.add_argument("--layout", metavar="NAME", help="of twelve leads in a picture: 3x4, 6x2 or 12x1")
    parser.add_argument("--speed", type=float, metavar="MM", help="of a picture, mm/s; 25 where none is given")
    parser.add_argument("--gain", type=float, metavar="MM", help="of a picture, mm/mV; 10 where none is given")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="for annotations and pictures; beside the records")
    settings, arguments = config.load(parser, argv)
    paths, inference = recordings(arguments.records, arguments.recursive), settings.inference
    # the first that can be read is asked for twice where its leads choose the run
    read = lru_cache(maxsize=1)(partial(readers.read, units_per_mv=inference.units_per_mv, fs=inference.fs))
    run, trained = find_bundle(settings.run_dir, None if settings.run_dir else first_readable(paths, read))
    output = plan(paths, arguments, trained)
    made = f", trained on {trained.origin.data} on {trained.origin.date}" if trained.origin.data else ""
    print(f"model {run} ({trained.name}){made}; not a medical device", file=sys.stderr)
    if output.format == "csv":
        print(*columns_of(trained.recipe.of_beats), sep=",")
    done, failed = 0, 0
    for path in paths:
        try:
            record = read(path)
            prediction = predict_record(record, trained, run, inference.leads, inference.batch_size)
            if path in output.pictures:  # first: an annotation would stand in the way of another try
                draw(output.pictures[path], record, prediction, output)
            if path in output.annotations:
                annotate(output.annotations[path], prediction, readers.native_rate(path) or prediction.fs)
                print(f"wrote {output.annotations[path]}", file=sys.stderr)
        except (Stop, ValueError, OSError) as error:
            if output.one:
                raise
            failed += 1
            print("error: " + script.one_line(error), file=sys.stderr)
            continue
        if how := said(record):
            print(f"{path}: {how}", file=sys.stderr)
        for warning in prediction.warnings:
            named = output.one or warning.startswith(prediction.record)
            print(f"warning: {warning}" if named else f"warning: {path}: {warning}", file=sys.stderr)
        print(to_output(prediction, output, done), end="", flush=True)
        done += 1
    if failed:
        raise Stop(f"{failed} of {len(paths)} records could not be read or do not fit the model")


if __name__ == "__main__":
    script.run(main)

"""What a run still finds where recordings are changed: noise, a lead off, another rate or gain, polarity inverted.

    robustness.evaluate(Path("runs/mitdb"), settings)      # python evaluate.py runs/mitdb --robustness

The rows of a split are scored again from their raw recordings, each time with every recording changed before the whole
chain: R peaks that are detected, numbers beside the rows, filters and scaling all see the change. Where beats are rows
by their annotations, these stay where they are. A row that a change leaves without a score, because its beat is not
detected any more or its recording cannot be prepared, counts as decided for no class, with a score of 0 for each.

Writes runs/<name>/report-robustness/, for another split than test report-<split>-robustness/, whole or not at all:
robustness.csv, robustness.md, robustness.png.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

import answers
import bundle
import pqrst
import runs
import script
from answers import Answer, numbered, pooled
from batches import Batch
from beats import voltages
from bundle import Bundle
from config import Settings
from data import Dataset
from evaluate import open_run
from folds import Rows
from index import Index, Item, build_index, open_recording, read_labels
from preprocess import raw_folder
from recipe import Bandpass, Recipe
from script import Stop
from sources import source_of
from view import bridged

Array = NDArray[Any]
Rng = np.random.Generator
AS_RECORDED = "as recorded"
SNR_DB = (24, 12, 6, 0)
MAINS_HZ = 50.0
WANDER_HZ, WANDER_SINES = (0.05, 0.5), 8
LEAST_RATE_HZ = 50  # of pqrst.rpeaks
SEED = 0

# ------------------------------------------------------------------------------------------------ the changes


class Change(NamedTuple):
    """Something that may happen to a recording."""

    name: str
    apply: Callable[[pqrst.Record, Rng], pqrst.Record]  # the generator is seeded by the recording's name


def changes_of(recipe: Recipe, rates: Sequence[float]) -> tuple[list[Change], list[str]]:
    """List the changes that suit a recipe and recordings of these rates (Hz), the first of them none.

    Returns
    -------
    the changes, and a sentence for each that does not quite do what its name says.
    """
    band = recipe.bandpass or Bandpass()
    changes = [Change(AS_RECORDED, lambda record, _: record)]
    changes += [Change(f"noise, SNR {snr} dB", partial(with_noise, snr_db=snr, band=band)) for snr in SNR_DB]
    slots = [k for k, names in enumerate(recipe.leads) if names != ("zeros",)]
    if len(slots) > 1:
        leads = recipe.leads
        changes += [Change(f"lead {leads[k][0]} off", partial(without_lead, leads=leads, slot=k)) for k in slots]
    least, notes = least_rate(recipe), []
    if any(fs > least for fs in rates):
        changes.append(Change("half the rate", partial(slower, least_hz=least)))
    if raised := sorted({fs for fs in rates if fs / 2 < least}):
        these = f"recordings at {', '.join(f'{fs:g}' for fs in raised)} Hz"
        reason = f"{least} Hz is the lowest rate that the filters and the R peak detector take"
        notes.append(f"Half the rate: {these} go to {least} Hz, or stay where they are below that: {reason}.")
    for factor, name in ((0.5, "gain x0.5"), (2.0, "gain x2"), (-1.0, "polarity inverted")):
        changes.append(Change(name, partial(times, factor=factor)))
    return changes, notes


def least_rate(recipe: Recipe) -> int:
    """Return the lowest whole rate (Hz) of recordings that the recipe's filters and the R peak detector take."""
    edges = [recipe.bandpass.high_hz if recipe.bandpass else 0.0, recipe.notch_hz or 0.0]
    return max(LEAST_RATE_HZ, int(2 * max(edges)) + 1)


def changed(record: pqrst.Record, signal: Array, fs: float | None = None) -> pqrst.Record:
    """Return the recording with another signal (L, T), mV, at another rate where fs (Hz) is given."""
    other = np.ascontiguousarray(signal, np.float32)
    return pqrst.Record(other, fs or record.fs, list(record.leads), list(record.units), record.name)


def with_noise(record: pqrst.Record, rng: Rng, snr_db: float, band: Bandpass) -> pqrst.Record:
    """Add noise to each lead: white, baseline wander and mains hum, a third of the power each.

    The signal-to-noise ratio is the power of the band-passed lead over that of all the noise, before any filter: the
    recipe's band-pass then takes most of the wander, and of the mains what lies above its upper edge. The noise of
    each lead is its own, so that I + III = II holds no more. A lead without any power gets none. Recordings at 100 Hz
    or less get no mains hum, which their rate cannot hold.

    Parameters
    ----------
    record, rng : a recording, and its own generator
    snr_db : signal-to-noise ratio, dB
    band : of the recipe; its upper edge is lowered to 0.4 times the rate where it is above
    """
    signal, places = record.signal.astype(np.float64), voltages(record)
    high_hz = min(band.high_hz, 0.4 * record.fs) if 2 * band.high_hz >= record.fs else band.high_hz
    heart = pqrst.bandpass(bridged(signal[places]), record.fs, band.low_hz, high_hz, band.order)
    power = (heart**2).mean(axis=1)  # (L,) mV^2
    noise = unit_noise(len(places), signal.shape[1], record.fs, rng)
    signal[places] += np.sqrt(power / 10 ** (snr_db / 10))[:, None] * noise
    return changed(record, signal)


def unit_noise(n_leads: int, n_samples: int, fs: float, rng: Rng) -> Array:
    """Return noise (L, T) whose mean square is 1 in each lead, a third of it of each kind."""
    time_s = np.arange(n_samples) / fs
    white = rng.standard_normal((n_leads, n_samples))
    rate, phase = rng.uniform(*WANDER_HZ, (n_leads, WANDER_SINES, 1)), rng.uniform(0, 2, (n_leads, WANDER_SINES, 1))
    wander = np.sin(np.pi * (2 * rate * time_s + phase)).sum(axis=1)
    kinds = [white, wander]
    if fs > 2 * MAINS_HZ:
        kinds.append(np.sin(np.pi * (2 * MAINS_HZ * time_s + rng.uniform(0, 2, (n_leads, 1)))))
    return _unit(np.sum([_unit(kind) for kind in kinds], axis=0))  # again, as the kinds are not quite orthogonal


def _unit(x: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(axis=1, keepdims=True)))


def without_lead(record: pqrst.Record, _: Rng, leads: Sequence[Sequence[str]], slot: int) -> pqrst.Record:
    """Make the lead that fills a slot a flat line of zeros, as a loose electrode gives.

    The chain gives zeros for a flat lead whatever `recipe.missing` is, and the R peak detector leaves it out. Other
    leads stay, those among the limb leads too that could not be measured without it.
    """
    place = pqrst.match_leads(leads, list(record.leads))[slot]
    if place < 0:
        return record
    signal = record.signal.copy()
    signal[place] = 0
    return changed(record, signal)


def slower(record: pqrst.Record, _: Rng, least_hz: int) -> pqrst.Record:
    """Resample a recording to half its rate, or to least_hz where that is more; never to a higher rate."""
    fs = max(record.fs / 2, least_hz)
    return record if fs >= record.fs else changed(record, pqrst.resample(record.signal, record.fs, fs), fs)


def times(record: pqrst.Record, _: Rng, factor: float) -> pqrst.Record:
    """Multiply all leads that hold a voltage."""
    signal = record.signal.copy()
    signal[voltages(record)] *= np.float32(factor)
    return changed(record, signal)


# ------------------------------------------------------------------------------------------------ the recordings


class Place(NamedTuple):
    """Where the rows of a recording stand in the prepared dataset."""

    item: Item
    rows: Rows  # (N,) row in the dataset of each row that the recording may give, -1 for those not in the split


def open_raw(settings: Settings, dataset: Dataset) -> Index:
    """List the recordings of the run's dataset where they are now.

    Raises
    ------
    Stop
        No folder of recordings, several datasets in one, or another dataset than the prepared one.
    """
    data, raw = settings.data, raw_folder(settings)
    if len(settings.data_dirs) > 1:
        raise Stop(f"data.dir: {dataset.folder}: the recordings of one dataset are scored; name one of them")
    source = source_of(data.name)
    if not raw.is_dir():
        raise Stop(f"{raw}: no such folder; where are the recordings of {data.name}? Give --data.raw FOLDER")
    index = build_index(source, data, dataset.recipe, raw)
    if other := set(index.target.classes) - set(dataset.classes):
        raise Stop(f"{raw} has classes {', '.join(sorted(other))}, which {dataset.folder} has not")
    # of some recordings alone (data.limit) there may be fewer classes
    return index._replace(target=replace(index.target, classes=dataset.classes))


def places_of(index: Index, dataset: Dataset, rows: Rows, bar: tqdm[Any]) -> list[Place]:
    """Find the rows of a split among those that each recording gives as it is.

    Raises
    ------
    Stop
        None of the recordings is there, or one gives other rows than it gave when the dataset was prepared.
    """
    in_split = np.zeros(len(dataset), bool)
    in_split[rows] = True
    of_record = pd.Series(np.arange(len(dataset))).groupby(dataset.record).indices
    wanted = set(dataset.record[rows].tolist())
    alone = dataset.recipe.model_copy(update={"context": ()})  # the numbers beside the rows are not looked at
    found = []
    for item in index.items:
        name = item.name.encode()
        if name not in wanted:
            continue
        prepared, _, kept = rows_of(item, index, alone)
        there = of_record[name]
        if not np.array_equal(prepared.start[kept], dataset.start[there]):
            raise Stop(f"{index.raw}/{item.recording.locator}: gives other rows than {dataset.folder} holds of it")
        place = np.full(prepared.index.max(initial=-1) + 1, -1)
        place[prepared.index[kept]] = np.where(in_split[there], there, -1)
        found.append(Place(item, place))
        bar.update()
    if not found:
        raise Stop(f"{index.raw}: none of the {len(wanted):,} recordings of the split is there")
    return found


def rows_of(
    item: Item, index: Index, recipe: Recipe, change: Change | None = None
) -> tuple[pqrst.Prepared, NDArray[np.float32], NDArray[np.bool_]]:
    """Prepare a recording, changed, as preprocess.py does it.

    Returns
    -------
    its N rows, the numbers beside them (N, F), and which of them count: those with a label, or all where rows without
    one are kept.

    Raises
    ------
    OSError, ValueError
        The recording cannot be read, or it gives no rows.
    """
    record = open_recording(item, index)
    if change:
        record = change.apply(record, np.random.default_rng([SEED, *item.name.encode()]))
    labels, context, beats, _ = read_labels(item, index, recipe, record)
    prepared = pqrst.prepare([record], recipe.chain(), None if beats is None else [beats.sample])
    known = prepared.index < len(labels)  # at another rate there may be a window more
    place = np.where(known, prepared.index, 0)
    return prepared, context[place], known & (labels[place].any(axis=1) | (index.target.without == "kept"))


# ------------------------------------------------------------------------------------------------ the scores


def answer_of(
    change: Change, places: Sequence[Place], index: Index, trained: Bundle, units: Array, size: int, bar: tqdm[Any]
) -> Answer:
    """Score all recordings under a change, `size` rows at a time; `units` as units_of gives them.

    Rows come in the order of the dataset and in batches as evaluate.py makes them, so that scores agree to the bit.
    """
    inside: list[NDArray[np.int64]] = []

    def noted(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            inside.append(batch.valid[:, 1] - batch.valid[:, 0])
            yield batch

    rows, logits = bundle.score(trained, noted(batches_of(change, places, index, trained, size, bar)))
    return pooled(trained, rows, logits, np.concatenate(inside or [np.zeros(0, np.int64)]), units)


def batches_of(
    change: Change, places: Sequence[Place], index: Index, trained: Bundle, size: int, bar: tqdm[Any]
) -> Iterator[Batch]:
    """Give the rows of the split under a change in batches of `size`; none of a recording that cannot be prepared."""
    left: list[Batch] = []
    for item, of_place in places:
        bar.update()
        try:
            prepared, context, kept = rows_of(item, index, trained.recipe, change)
        except (OSError, ValueError):
            continue
        known = kept & (prepared.index < len(of_place))
        row = np.where(known, of_place[np.where(known, prepared.index, 0)], -1)
        use = row >= 0
        labels = np.zeros((use.sum(), len(trained.classes)), np.uint8)
        left.append(Batch(prepared.rows[use], labels, context[use], prepared.valid[use], row[use]))
        while sum(len(batch.rows) for batch in left) >= size:
            whole = _joined(left)
            yield Batch(*(column[:size] for column in whole))
            left = [Batch(*(column[size:] for column in whole))]
    if sum(len(batch.rows) for batch in left):
        yield _joined(left)


def _joined(batches: Sequence[Batch]) -> Batch:
    return Batch(*(np.concatenate(column) for column in zip(*batches, strict=True)))


# ------------------------------------------------------------------------------------------------ the report


def evaluate(run: Path, settings: Settings) -> None:
    """Score a split of the run's dataset under every change, write the report and print it.

    Raises
    ------
    Stop
        What `open_run`, `open_raw` and `places_of` raise.
    """
    trained, dataset, rows = open_run(run, settings)
    index = open_raw(settings, dataset)
    names = set(dataset.record[rows].tolist())
    items = [item for item in index.items if item.name.encode() in names]
    changes, notes = changes_of(trained.recipe, [item.fs for item in items])
    with tqdm(total=(1 + len(changes)) * len(items), unit=" records", disable=None, leave=False) as bar:
        bar.set_description("rows")
        places = places_of(index._replace(items=items), dataset, rows, bar)
        rows, first, units = units_of(dataset, places)
        of_changes = {}
        for change in changes:
            bar.set_description(change.name)
            size = settings.evaluation.batch_size
            of_changes[change.name] = answer_of(change, places, index, trained, units, size, bar)
    scored = [dataset.classes.index(name) for name in settings.data.scored_classes or dataset.classes]
    table = answers.table_of("change", of_changes, dataset.labels[first], dataset.patient[first], scored)
    split = settings.evaluation.split
    text = (
        f"# {run}: {split} rows of changed recordings\n\n"
        f"{trained.name}, {settings.evaluation.checkpoint} checkpoint of epoch {trained.origin.epoch}, on "
        f"{len(rows):,} rows of {len(places):,} of the {len(names):,} recordings of the split, "
        f"{dataset.patients(rows)}. Each recording is changed before it is filtered, scaled and cut.\n\n"
        + dataset.summary.warning
        + answers.as_markdown(table)
        + "".join(f"\n{note}\n" for note in notes)
    )
    place = run / f"{runs.REPORT}{'' if split == 'test' else f'-{split}'}-robustness"
    with script.folder_aside(place) as folder:
        table.to_csv(folder / "robustness.csv", index=False, float_format="%.6g")
        (folder / "robustness.md").write_text(text)
        answers.draw(table, folder / "robustness.png")
    print(text)
    print(f"report in {place}", file=sys.stderr)


def units_of(dataset: Dataset, places: Sequence[Place]) -> tuple[Rows, Rows, Array]:
    """Number what is scored as one.

    Returns
    -------
    the rows in question in order (B,), the first row of each unit (U,), and the unit of each row of the dataset (N,),
    -1 where the row is not in question.
    """
    rows = np.sort(np.concatenate([place.rows[place.rows >= 0] for place in places]))
    return rows, *numbered(dataset, rows, dataset.units(rows))

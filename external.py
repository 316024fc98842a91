"""External validation: a trained network on recordings that it has nothing to do with, as infer.py predicts them.

    external.evaluate(Path("runs/mitdb"), settings)      # python evaluate.py runs/mitdb --data.raw FOLDER

The recordings are those of a dataset of sources.py, with its labels, which joining.py tells as the run's classes where
they are others; there are no folds, and no training rows. Beats
are counted as ANSI/AAMI EC57 has it: a beat that is not found counts against its class, and a detection where no beat
is against the class that it was given, unless it lies in ventricular flutter, where no beats are marked. Runs of
ectopic beats and the heart rate are compared by episodes.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

import bundle
import challenge
import episodes
import metrics
import runs
import script
from beats import WINDOW_S, context_of, detect, match_beats
from bundle import Bundle
from config import Settings
from decide import decide
from ec57 import flutter
from index import Index, Item, annotations_of, build_index, open_recording, path_of, problem_below, read_labels
from infer import choose_leads, logits_of
from intervals import LEVEL, draws, intervals_of
from joining import Joined, join
from recipe import Recipe
from script import Stop, markdown_table
from sources import BEAT_SYMBOLS, Problem, source_of

BOOTSTRAPS = 2000
LEFT_OUT = ("paced",)  # folds that no split takes, as AAMI practice has it
Counts = NDArray[np.int64]


class Scored(NamedTuple):
    """What a network said of one recording."""

    item: Item
    targets: NDArray[np.uint8]  # (N, K) of rows that have both a truth and a score
    scores: NDArray[np.float32]  # (N, K)
    missed: Counts  # (K,) annotated beats that were not found, by class
    false: Counts  # (K,) detections without a beat, by the class that they were given
    ectopy: episodes.RecordCounts | None = None  # of beats that S and V are among


def evaluate(run: Path, settings: Settings) -> None:
    """Score all recordings of a dataset by a run, write the report and print it.

    Raises
    ------
    Stop
        No recording that can be scored, or none of the classes that the run knows.
    """
    trained = bundle.load(run / f"{settings.evaluation.checkpoint}.pt")
    data, raw = settings.data, settings.data.raw
    if raw is None or not raw.is_dir():
        raise Stop(f"{raw}: no such folder")
    source = source_of(data.name)
    if data.target == runs.settings_of(run).data.target and data.target not in source.targets:
        data = data.model_copy(update={"target": None})  # that of the run's own dataset: here the default
        settings = settings.model_copy(update={"data": data})
    annotated = trained.recipe.model_copy(update={"centers": "annotations"})
    index = build_index(source, data, annotated, raw)
    joined = None
    if index.target.classes != trained.classes:
        joined, index = _joined(run, index, trained, settings, annotated)
        scored_classes = tuple(name for name in joined.shared if name in (data.scored_classes or joined.shared))
        scored_data = data.model_copy(update={"scored_classes": scored_classes or joined.shared})
        settings = settings.model_copy(update={"data": scored_data})
    detected = trained.recipe.of_beats and settings.evaluation.r_peaks == "detected"
    scored, problems = _score_all(index, trained, detected, settings)
    if not sum(len(each.targets) for each in scored):
        raise Stop(f"{raw}: nothing could be scored; first: {problems[0] if problems else 'no labels'}")
    text, tree, patients = _report(run, index, trained, scored, problems, detected, settings)
    if joined:
        text += _of_classes(joined, trained.classes)
        tree |= {"shared": joined.shared, "lacking": joined.lacking}
    place = run / f"{runs.REPORT}-{data.name}{'-detected' if detected else ''}"
    with script.folder_aside(place) as folder:
        (folder / "metrics.json").write_text(json.dumps(tree, indent=1))
        (folder / "report.md").write_text(text)
        patients.to_csv(folder / "patients.csv", index=False, float_format="%.6g")
        cells = [[script.cell(cell) for cell in problem] for problem in problems]
        pd.DataFrame(cells, columns=list(Problem._fields)).to_csv(folder / "failures.csv", index=False)
    print(text)
    print(f"report in {place}", file=sys.stderr)


def _joined(run: Path, index: Index, trained: Bundle, settings: Settings, recipe: Recipe) -> tuple[Joined, Index]:
    """List the recordings again with the labels told as the run's classes; Stop where there is none of these."""
    data, source = settings.data, source_of(settings.data.name)
    joined = join(index.target, trained.classes, trained.task)
    if not joined.shared:
        known, here = ", ".join(trained.classes), ", ".join(index.target.classes)
        raise Stop(f"{run} knows classes {known}, {index.raw} has {here}; choose another --data.target")
    translated = replace(source, targets=dict.fromkeys(source.targets, joined.target))
    return joined, build_index(translated, data, recipe, index.raw)


def _of_classes(joined: Joined, classes: tuple[str, ...]) -> str:
    """Say which classes both sides know, and which one of them lacks."""
    untold = [name for name in classes if name not in joined.shared]
    return (
        f"\n## Classes\n\nScored: {', '.join(joined.shared)}. The run knows, these recordings do not tell: "
        f"{', '.join(untold) or 'none'}. These recordings tell, the run does not know: "
        f"{', '.join(joined.lacking) or 'none'}.\n"
    )


# ------------------------------------------------------------------------------------------------ the scores


def _score_all(index: Index, trained: Bundle, detected: bool, how: Settings) -> tuple[list[Scored], list[Problem]]:
    batch_size, first_s, leads = how.evaluation.batch_size, how.evaluation.first_s, how.inference.leads
    scored: list[Scored] = []
    problems = list(index.problems)
    for item in tqdm(index.items, "records", unit=" records", disable=None, leave=False):
        if item.recording.fold in LEFT_OUT:
            continue
        try:
            each, warnings = score_recording(item, index, trained, detected, batch_size, first_s, leads)
            scored.append(each)
            problems += [problem_below(index.raw, item.recording.locator, stage, text) for stage, text in warnings]
        except (Stop, OSError, ValueError) as error:
            reason = script.one_line(error)
            problems.append(problem_below(index.raw, item.recording.locator, "read", reason))
    return scored, problems


def score_recording(
    item: Item,
    index: Index,
    trained: Bundle,
    detected: bool,
    batch_size: int,
    first_s: float = episodes.LEARNING_S,
    leads: str = "",
) -> tuple[Scored, list[tuple[str, str]]]:
    """Score one recording, its runs and rate from first_s on; also say what was left out of it.

    `leads` says which of them fill which slot, as infer.py takes it; "": by their names.
    """
    record = open_recording(item, index)
    recipe, _ = choose_leads(record, trained.recipe, leads)
    trained = replace(trained, recipe=recipe)
    beside = () if detected or not recipe.of_beats else recipe.context  # numbers of annotated beats alone
    asked = {"centers": "annotations", "context": beside}
    truth = read_labels(item, index, recipe.model_copy(update=asked))
    targets, classes = truth.labels, trained.classes
    none = np.zeros(len(classes), np.int64)
    if truth.beats is None:
        prepared, logits = logits_of(record, trained, None, None, batch_size)
        left = [(stage, text) for _, stage, text in prepared.errors]
        if index.target.rows == "rhythms":  # each window has its own
            units, targets = np.arange(len(logits)), targets[prepared.index]
        else:
            units, targets = np.zeros(len(logits), np.int64), targets[: min(1, len(logits))]
        inside = prepared.valid[:, 1] - prepared.valid[:, 0]
        _, scores = bundle.pool(logits, units, inside, trained.task)
        known = targets.any(axis=1) if index.target.without != "kept" else np.ones(len(targets), bool)
        return Scored(item, targets[known], scores[known], none, none), left
    centers, context = truth.beats.sample, truth.context
    if detected:
        centers = detect(record)
        context = context_of(recipe, centers, record.fs, lambda: record)
    prepared, logits = logits_of(record, trained, centers, context, batch_size)
    left = [(stage, text) for _, stage, text in prepared.errors]
    _, scores = bundle.pool(logits, np.arange(len(logits)), np.ones(len(logits), np.int64), trained.task)
    decided = decide(scores, trained.task, trained.thresholds)
    annotations = annotations_of(path_of(index.raw, item.recording), item.recording)
    unmarked = flutter(annotations.sample, annotations.symbol)  # no beats are marked there
    ectopy = None
    if trained.task == "multiclass" and {"S", "V"} <= set(classes):
        # All annotated beats: those without a class are no rows, but end a run and count for the rate.
        reference = annotations.sample[np.isin(annotations.symbol, list(BEAT_SYMBOLS))]
        places = truth.beats.beat_index
        test, test_places = (centers, prepared.index) if detected else (reference, places[prepared.index])
        reference_classes = _names_at(places, targets, classes, len(reference))
        test_classes = _names_at(test_places, decided, classes, len(test))
        start = round(first_s * record.fs)
        ectopy = episodes.score_record(reference, reference_classes, test, test_classes, record.fs, start, unmarked)
    if not detected:
        return Scored(item, targets[prepared.index], scores, none, none, ectopy), left
    pairs = match_beats(truth.beats.sample, prepared.start, WINDOW_S * record.fs)
    missed = np.ones(len(targets), bool)
    missed[pairs[:, 0]] = False
    alone = np.ones(len(scores), bool)
    alone[pairs[:, 1]] = False
    for first, last in unmarked:
        alone &= (prepared.start < first) | (prepared.start > last)
    false = decided[alone].sum(axis=0, dtype=np.int64)
    return Scored(item, targets[pairs[:, 0]], scores[pairs[:, 1]], targets[missed].sum(axis=0), false, ectopy), left


def _names_at(places: Counts, labels: NDArray[Any], classes: tuple[str, ...], n_beats: int) -> NDArray[np.str_]:
    """Return the class of each of n_beats beats, "" where no row (N, K) of labels is at its place."""
    names = np.full(n_beats, "", dtype=np.array(classes).dtype)
    names[places] = np.array(classes)[labels.argmax(axis=1)]
    return names


# ------------------------------------------------------------------------------------------------ the report


def confusion_of(scored: Scored, trained: Bundle) -> Counts:
    """Return (K + 1, K + 1) counts of one recording: [class][decided], the last row false, the last column missed."""
    k = len(trained.classes)
    counts = np.zeros((k + 1, k + 1), np.int64)
    decided = decide(scored.scores, trained.task, trained.thresholds)
    np.add.at(counts, (scored.targets.argmax(axis=1), decided.argmax(axis=1)), 1)
    counts[:k, k], counts[k, :k] = scored.missed, scored.false
    return counts


def beat_scores(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Return accuracy, kappa, and of each class Se, +P and F1, of counts (..., K + 1, K + 1); NaN without a beat.

    Accuracy and Cohen's kappa are over all beats and false detections.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        right = np.diagonal(counts, axis1=-2, axis2=-1)[..., :-1].astype(np.float64)  # (..., K)
        of_class, of_decision = counts[..., :-1, :].sum(axis=-1), counts[..., :, :-1].sum(axis=-2)
        total = counts.sum(axis=(-2, -1)).astype(np.float64)
        se, precision = right / of_class, right / of_decision
        agreed = right.sum(axis=-1) / total
        by_chance = (counts.sum(axis=-1) / total[..., None] * (counts.sum(axis=-2) / total[..., None])).sum(axis=-1)
        return {
            "accuracy": agreed,
            "kappa": (agreed - by_chance) / (1 - by_chance),
            "se": se,
            "precision": precision,
            "f1": 2 * right / (of_class + of_decision),
        }


def j_kappa(scores: dict[str, NDArray[np.float64]], classes: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return kappa / 2 + j / 8, j the sum of Se and +P of S and V (Mar et al. 2011); None where a class is missing."""
    if not {"S", "V"} <= set(classes):
        return None
    places = [classes.index("S"), classes.index("V")]
    j = np.asarray(scores["se"][..., places] + scores["precision"][..., places]).sum(axis=-1)
    return np.asarray(scores["kappa"] / 2 + j / 8)


def _report(
    run: Path,
    index: Index,
    trained: Bundle,
    scored: list[Scored],
    problems: list[Problem],
    detected: bool,
    settings: Settings,
) -> tuple[str, dict[str, Any], pd.DataFrame]:
    targets = np.concatenate([each.targets for each in scored])
    scores = np.concatenate([each.scores for each in scored])
    report = metrics.scores_of(
        targets, scores, trained.classes, trained.task, trained.thresholds, settings.data.scored_classes
    )
    decided = decide(scores, trained.task, trained.thresholds)
    ranked = challenge.challenge_scores(targets, decided, trained.classes, settings.evaluation.challenge)
    patients = sorted({each.item.recording.patient for each in scored})
    of_beats = trained.recipe.of_beats
    known = f"{len(patients):,} patients" if index.patients_known else "unknown patients"
    where = ", where infer.py finds them" if detected else ", where they are annotated" if of_beats else ""
    head = (
        f"# {run}: {settings.data.name} at {settings.data.raw}\n\n"
        f"{trained.name}, {settings.evaluation.checkpoint} checkpoint of epoch {trained.origin.epoch}, on "
        f"{len(scored):,} recordings of {known}: {len(targets):,} {index.target.rows}{where}; "
        f"{len(problems):,} problems in failures.csv.\n\n{challenge.as_text(ranked)}"
    )
    origin = {
        "run": str(run), "data": settings.data.name, "raw": str(settings.data.raw), "recordings": len(scored),
        "patients": len(patients), "r_peaks": settings.evaluation.r_peaks if of_beats else None,
        "problems": len(problems), "challenge": ranked, "commit": trained.origin.commit,
    }  # fmt: skip
    if trained.task != "multiclass":
        table = pd.DataFrame({"patient": [], "rows": []})
        owner = np.repeat([each.item.recording.patient for each in scored], [len(each.targets) for each in scored])
        counted = [trained.classes.index(name) for name in report.scored_classes]
        between = intervals_of(targets, scores, decided, owner, counted)
        text = head + metrics.report_markdown(report, between)
        return text, {**origin, **report.tree(), "intervals": between}, table
    k = len(trained.classes)
    of_patient = {patient: np.zeros((k + 1, k + 1), np.int64) for patient in patients}
    for each in scored:
        of_patient[each.item.recording.patient] += confusion_of(each, trained)
    counts = np.stack(list(of_patient.values()))  # (P, K + 1, K + 1)
    pooled, intervals = with_intervals(counts, trained.classes)
    alone = beat_scores(counts)
    rows = {"patient": [script.cell(patient) for patient in of_patient], "rows": counts.sum(axis=(1, 2))}
    pairs = [(name, c) for name in ("se", "precision") for c in range(k)]
    by_class = {f"{name}_{trained.classes[c]}": alone[name][:, c] for name, c in pairs}
    text = head + _tables(pooled, intervals, counts.sum(axis=0), alone, trained.classes, of_beats and detected)
    of_runs: dict[str, Any] = {}
    if compared := [each.ectopy for each in scored if each.ectopy is not None]:
        of_runs = {"runs": episodes.report_tree(compared, settings.evaluation.first_s)}
        text += "\n" + episodes.report_text(of_runs["runs"])
    tree = {**origin, "pooled": pooled, "intervals": intervals, "counts": counts.sum(axis=0).tolist(), **report.tree()}
    tree |= of_runs
    return text, tree, pd.DataFrame({**rows, "accuracy": alone["accuracy"], **by_class})


def _flat(counts: Counts, classes: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Return all scores of counts (..., K + 1, K + 1) by name."""
    scores = beat_scores(counts)
    flat = {"accuracy": scores["accuracy"], "kappa": scores["kappa"]}
    if (joint := j_kappa(scores, classes)) is not None:
        flat["j_kappa"] = joint
    for name in ("se", "precision", "f1"):
        flat |= {f"{name}_{cls}": scores[name][..., c] for c, cls in enumerate(classes)}
    return flat


def with_intervals(
    counts: Counts, classes: tuple[str, ...]
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Return scores of all patients together, and 95 % intervals by drawing patients with replacement."""
    pooled = {name: episodes.number(value) for name, value in _flat(counts.sum(axis=0), classes).items()}
    drawn = draws(counts.sum(axis=(1, 2))[None], BOOTSTRAPS, seed=0)  # (B, P) times each
    together = np.tensordot(drawn, counts, axes=1)  # (B, K + 1, K + 1)
    intervals: dict[str, list[float] | None] = {}
    for name, values in _flat(together, classes).items():
        finite = values[np.isfinite(values)]
        intervals[name] = np.quantile(finite, LEVEL).tolist() if len(finite) and len(counts) > 1 else None
    return pooled, intervals


def _tables(
    pooled: dict[str, float | None],
    intervals: dict[str, list[float] | None],
    counts: Counts,
    alone: dict[str, NDArray[np.float64]],
    classes: tuple[str, ...],
    detected: bool,
) -> str:
    def cell(name: str) -> str:
        value, between = pooled[name], intervals[name]
        if value is None:
            return "-"
        return f"{value:.4f}" + (f" ({between[0]:.3f} to {between[1]:.3f})" if between else "")

    names = [name for name in ("accuracy", "kappa", "j_kappa") if name in pooled]
    of_all = [[name.replace("_", "-"), cell(name)] for name in names]
    of_classes = []
    for c, cls in enumerate(classes):
        spread = [_mean_and_median(alone[name][:, c]) for name in ("se", "precision")]
        cells = [f"{counts[c].sum():,}", *(cell(f"{name}_{cls}") for name in ("se", "precision", "f1")), *spread]
        of_classes.append([cls, *cells])
    decided = [*classes, "missed"] if detected else list(classes)
    confused = [
        [cls, *(f"{value:,}" for value in counts[c, : len(decided)])]
        for c, cls in enumerate([*classes, "no beat"] if detected else classes)
    ]
    by_patient = ("Se by patient, mean / median", "+P by patient, mean / median")
    tables = (
        markdown_table(["", "all patients together (95 % interval over patients)"], of_all),
        markdown_table(["class", "rows", "Se", "+P", "F1", *by_patient], of_classes),
        markdown_table([r"class \ decided", *decided], confused),
    )
    return "\n\n".join(tables) + "\n"


def _mean_and_median(values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.3f} / {np.median(finite):.3f}" if len(finite) else "-"

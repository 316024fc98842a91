"""Cross-validate the classifier of beats: every recording is scored by a network that never saw its patient.

    python benchmarks/beats.py --mitdb FOLDER --svdb FOLDER                  # configs/beats.yaml, five trainings
    python benchmarks/beats.py --mitdb FOLDER --svdb FOLDER --ds1            # DS1 alone, as papers have it
    python benchmarks/beats.py ... --lead 1 --r_peaks detected               # one lead, R peaks of pqrst.rpeaks

The datasets are prepared below --work where they are not yet. Of ten folds, each training leaves out two that are
scored and a third that chooses the epoch. Counts are those of evaluate.py RUN --data.raw FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bundle
import preprocess
import readers
import script
import train
from config import Data
from data import Dataset
from external import beat_scores, confusion_of, score_recording, with_intervals
from index import Index, Item, build_index, path_of
from runs import checkpoint_of
from sources import SOURCES

FOLDS = 10
CONFIG = ["--config", str(Path(__file__).resolve().parent.parent / "configs/beats.yaml")]


def prepare(name: str, raw: Path, folder: Path) -> None:
    preprocess.main([*CONFIG, "--data.name", name, "--data.raw", str(raw), "--data.dir", str(folder)])


def train_without(held_out: int, folders: list[Path], ds1: bool, run: Path) -> None:
    """Train on all folds but `held_out`, the one after it, and a third that chooses the epoch."""
    aside = {(held_out + k) % FOLDS for k in range(3)}
    learnt = [str(fold) for fold in range(FOLDS) if fold not in aside]
    folds = [*learnt, *(f"{fold}+" for fold in learnt), *([] if ds1 else ["paced"])]
    words = ["--data.dir", ",".join(map(str, folders)), "--data.train", ",".join(folds)]
    words += ["--data.validation", str((held_out + 2) % FOLDS), "--run_dir", str(run), "--overwrite"]
    train.main([*CONFIG, *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mitdb", type=Path, required=True, help="folder of the MIT-BIH Arrhythmia Database")
    parser.add_argument("--svdb", type=Path, help="folder of the MIT-BIH Supraventricular Arrhythmia Database")
    parser.add_argument("--work", type=Path, default=Path("runs/beats-cv"), help="for prepared datasets and runs")
    parser.add_argument("--ds1", action="store_true", help="learn from DS1 alone; of SVDB all is then unseen")
    parser.add_argument("--lead", type=int, choices=(0, 1), help="only this lead of each recording")
    parser.add_argument("--r_peaks", choices=("annotated", "detected"), default="annotated")
    arguments = parser.parse_args()
    raw = {"mitdb": arguments.mitdb} | ({"svdb": arguments.svdb} if arguments.svdb else {})
    folders = {name: arguments.work / name for name in raw}
    for name, folder in folders.items():
        prepare(name, raw[name], folder)
    fold_of, indices = {}, {}
    for name, folder in folders.items():
        prepared = Dataset(folder)
        fold_of[name] = dict(zip(prepared.record.tolist(), prepared.fold.tolist(), strict=True))
        indices[name] = build_index(SOURCES[name], Data(name=name), prepared.recipe, raw[name])
    learnt = [folders["mitdb"]] if arguments.ds1 else list(folders.values())
    counts: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for held_out in range(0, FOLDS, 2):
        run = arguments.work / f"{'ds1' if arguments.ds1 else 'all'}-{held_out}"
        if not (run / "best.pt").exists():
            train_without(held_out, learnt, arguments.ds1, run)
        trained = bundle.load(checkpoint_of(run))
        for name, index in indices.items():
            for item in index.items:
                fold = fold_of[name][item.name.encode()]
                unseen = arguments.ds1 and name == "svdb" and held_out == 0
                if fold in (b"%d" % held_out, b"%d" % (held_out + 1)) or unseen:
                    narrowed = trained if arguments.lead is None else one_lead(trained, item, index, arguments.lead)
                    detected = arguments.r_peaks == "detected"
                    scored, _ = score_recording(item, index, narrowed, detected, 4096)
                    counts[name][item.recording.locator] = confusion_of(scored, trained)
    for name, of_record in counts.items():
        report(name, of_record, trained.classes)


def one_lead(trained: bundle.Bundle, item: Item, index: Index, lead: int) -> bundle.Bundle:
    """Let the first slot be one lead of the recording, and the second be missing."""
    leads = readers.info(path_of(index.raw, item.recording)).leads
    recipe = trained.recipe.model_copy(update={"leads": ((leads[lead],), ("zeros",))})
    return replace(trained, recipe=recipe)


def report(name: str, of_record: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    counts = np.stack(list(of_record.values()))
    alone = beat_scores(counts)
    pooled, intervals = with_intervals(counts, classes)

    def cell(score: str) -> str:
        between = intervals[score]
        return f"{pooled[score]:.3f}" + (f" ({between[0]:.3f} to {between[1]:.3f})" if between else "")

    print(f"\n{name}: {len(counts)} recordings, accuracy {cell('accuracy')}, j-kappa {cell('j_kappa')}; ", end="")
    print("in brackets the 95 % interval over recordings")
    for c, cls in enumerate(classes[:3]):
        of_one = [f"{np.nanmean(alone[k][:, c]):.3f} / {np.nanmedian(alone[k][:, c]):.3f}" for k in ("se", "precision")]
        print(
            f"  {cls}: Se {cell(f'se_{cls}')}, +P {cell(f'precision_{cls}')}; "
            f"by recording, mean / median: Se {of_one[0]}, +P {of_one[1]}"
        )
    print(counts.sum(axis=0))
    worst = np.argsort(alone["accuracy"])[:8]
    print("  worst:", ", ".join(f"{list(of_record)[k]} {alone['accuracy'][k]:.3f}" for k in worst))


if __name__ == "__main__":
    script.run(main)

"""Shared by all tests: seeded randomness, the folder of real recordings, small simulated datasets."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb

import pqrst

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: each has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the scripts are run where they stand, they are not installed


def pytest_report_header():
    import torch

    return f"pqrst from {pqrst.__file__}, torch {torch.__version__}, {torch.cuda.device_count()} GPUs"


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """Let `-m "not slow"` leave out what is long, too."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings named by ECG_TEST_DATA; the test is skipped where there is none."""
    folder = os.environ.get("ECG_TEST_DATA")
    if not folder:
        pytest.skip("needs real recordings: set ECG_TEST_DATA to a folder that holds mitdb/, ptb-xl/, ...")
    return Path(folder)


def heed_ctrl_c():
    """For `preexec_fn`: a shell's background jobs ignore SIGINT, and so would a process that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def write_record(folder, name, signal, fs, leads, beats=None, **more):
    """One WFDB record of (L, T) mV in format 16, 1000 units per mV; beats: (samples, symbols) for an .atr file."""
    n = len(leads)
    wfdb.wrsamp(
        name,
        fs,
        ["mV"] * n,
        list(leads),
        np.ascontiguousarray(signal.T),
        fmt=["16"] * n,
        adc_gain=[1000.0] * n,
        baseline=[0] * n,
        write_dir=str(folder),
        **more,
    )
    if beats is not None:
        wfdb.wrann(name, "atr", np.asarray(beats[0]), list(beats[1]), write_dir=str(folder))
    return folder / f"{name}.hea"


def write_summary(folder, recipe, parts, classes=("any",), task="multilabel", labelled="recordings"):
    """Write the dataset.json of parts that a test has written itself: [{file, rows}, ...]."""
    n = sum(part["rows"] for part in parts)
    counts = {"rows": n, "patients": n, "classes": dict.fromkeys(classes, n)}
    chosen = {"name": "test", "split": "patients"}
    sources = {"records": n, "bytes": 0, "sha256": ""}
    from data import Summary

    Summary(
        name="test", task=task, classes=classes, labelled=labelled, recipe=recipe, data=chosen, leak=None,
        patients_known=True, row_samples=pqrst.row_samples(recipe.tree()), rows_before=n, rows=n, records=n, patients=n,
        classes_before=counts["classes"], classes_after=counts["classes"], counts={"0": counts}, splits={}, failures={},
        warnings={}, parts=parts, identity={"version": 1, "data": chosen, "recipe": recipe, "sources": sources},
    ).save(folder)  # fmt: skip


@pytest.fixture(scope="session")
def mitdb_like(tmp_path_factory) -> Path:
    """A folder laid out like MIT-BIH: eight two-lead records of 60 s at 360 Hz, simulated, with N and V beats.

    102 is paced by name and has other leads; 114 has its leads in the other order.
    """
    import simulate

    folder = tmp_path_factory.mktemp("mitdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "PVC_FRACTION", 1.0)
        _write_mitdb_like(folder, simulate)
    return folder


def _write_mitdb_like(folder, simulate):
    for number, name in enumerate(["101", "102", "106", "108", "109", "114", "119", "200"]):
        generator = np.random.default_rng(number)
        patient = simulate.simulate_patient(generator)
        signal, r_peaks, symbols = simulate.simulate_record(generator, patient, (), 60.0, 360.0)
        leads, rows = {"102": (("V5", "V2"), [10, 7]), "114": (("V5", "MLII"), [10, 1])}.get(
            name, (("MLII", "V1"), [1, 6])
        )
        write_record(folder, name, signal[rows], 360, leads, (r_peaks, symbols))


@pytest.fixture(scope="session")
def prepared_beats(mitdb_like, tmp_path_factory) -> list[str]:
    """Settings of a prepared dataset of beats: three folds, each with patients of its own."""
    import preprocess

    folder = tmp_path_factory.mktemp("prepared")
    words = ["--dataset", "mitdb", "--data.raw", str(mitdb_like), "--data.dir", str(folder)]
    words += ["--data.folds", "3", "--data.train", "0", "--data.validation", "1", "--data.test", "2"]
    preprocess.main(words)
    return words


@pytest.fixture(scope="session")
def beat_run(prepared_beats, tmp_path_factory) -> Path:
    """A beat network, trained for two epochs."""
    import train

    folder = tmp_path_factory.mktemp("runs") / "beats"
    train.main([*prepared_beats, "--run", str(folder), "--training.epochs", "2", "--training.batch_size", "16"])
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """Forty simulated patients with 12 leads."""
    import simulate

    folder = tmp_path_factory.mktemp("demo")
    simulate.write_demo(folder, n_patients=40, seed=1)
    return folder


@pytest.fixture(scope="session")
def prepared_demo(demo_folder, tmp_path_factory) -> list[str]:
    """Settings of the prepared simulated patients, rows of 10 s in ten folds."""
    import preprocess

    folder = tmp_path_factory.mktemp("demo_run") / "prepared"
    words = ["--data.raw", str(demo_folder), "--data.dir", str(folder), "--data.folds", "10"]
    preprocess.main(words)
    return words


@pytest.fixture(scope="session")
def demo_run(prepared_demo) -> Path:
    """A network for whole records, trained for one epoch on the simulated patients; beside their prepared form."""
    import train

    folder = Path(prepared_demo[prepared_demo.index("--data.dir") + 1]).parent / "run"
    train.main([*prepared_demo, "--run", str(folder), "--training.epochs", "1", "--training.batch_size", "16"])
    return folder


@pytest.fixture
def ptbxl(tmp_path, rng) -> Path:
    """PTB-XL as it is published: five recordings at both rates; the fifth is named and absent."""
    from layouts import write_ptbxl

    return write_ptbxl(tmp_path / "ptb-xl", rng)

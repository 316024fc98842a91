"""Tests of the benchmarks on recordings made here, of the noise they add, and of their error messages."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, write_record
from layouts import TWELVE, twelve


@pytest.fixture(scope="module")
def rpeaks():
    """Import benchmarks/rpeaks.py as a module, and restore the environment variables that it sets."""
    before = dict(os.environ)
    from benchmarks import rpeaks

    os.environ.clear()
    os.environ.update(before)
    return rpeaks


FS = 360.0
N = 10 * 60 * 360


def spikes(amplitude):
    """Return (1, N) mV with triangles 40 ms wide every 0.8 s, and the samples of their peaks."""
    beats = np.arange(200, N - 200, 288)
    x = np.zeros(N)
    for beat in beats:
        x[beat - 7 : beat + 8] = amplitude * (1 - np.abs(np.arange(-7, 8)) / 8)
    return x[None], beats


def test_noise_is_on_for_two_minutes_of_four_after_five(rpeaks):
    minutes = rpeaks.noisy_minutes(20 * 60 * 360, FS).reshape(20, -1)
    assert (minutes.all(axis=1) | ~minutes.any(axis=1)).all()
    assert np.flatnonzero(minutes[:, 0]).tolist() == [5, 6, 9, 10, 13, 14, 17, 18]


def test_trimmed_mean_leaves_out_a_twentieth_at_either_end(rpeaks):
    assert rpeaks.trimmed_mean(np.array([-1e9, *[3.0] * 18, 1e9])) == 3
    assert rpeaks.trimmed_mean(np.array([1.0, 2.0])) == 1.5


@pytest.mark.parametrize("snr_db", [24, 0, -6])
@pytest.mark.parametrize("amplitude", [0.5, 2.0])
def test_noise_has_the_power_asked_for(rpeaks, rng, snr_db, amplitude):
    signal, beats = spikes(amplitude)
    noise = 123 + 45 * rng.standard_normal((1, N))
    added = rpeaks.add_noise(signal, noise, beats, FS, snr_db) - signal
    ratio = 10 * np.log10(amplitude**2 / 8 / added[0, 300 * 360 : 420 * 360].var())
    assert ratio == pytest.approx(snr_db, abs=0.15)


def test_noise_comes_and_goes_without_a_step(rpeaks):
    signal, beats = spikes(1.0)
    noise = 50 + np.sin(np.arange(N) / 200)[None]
    added = rpeaks.add_noise(signal, noise, beats, FS, 6.0) - signal
    assert np.abs(np.diff(added[0])).max() < 1.1 * np.abs(np.diff(added[0, 310 * 360 : 320 * 360])).max()
    assert (added[0, : 300 * 360] == 0).all()
    assert np.ptp(added[0, 421 * 360 : 539 * 360]) < 1e-9


def test_no_noise_changes_nothing(rpeaks, rng):
    signal, beats = spikes(1.0)
    noise = rng.standard_normal((1, N))
    np.testing.assert_array_equal(rpeaks.add_noise(signal, noise, beats, FS, np.inf), signal)


def test_it_scores_a_folder_and_says_what_is_not_there(mitdb_like, tmp_path):
    (tmp_path / "mitdb").symlink_to(mitdb_like)
    command = [sys.executable, str(REPOSITORY / "benchmarks/rpeaks.py"), str(tmp_path), "--detectors", "pqrst"]
    command += ["--sets", "mitdb", "ludb", "--csv", str(tmp_path / "beats.csv")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "ludb: left out" in printed
    with (tmp_path / "beats.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 * 2 * 2  # records, groups of leads, rules
    whole = [line for line in lines if line["rule"] == "whole records"]
    assert sum(int(line["found"]) for line in whole) > 0.98 * sum(int(line["beats"]) for line in whole) > 500
    assert all(line["f1"] == "" for line in lines if line["rule"] == "from minute 5")  # they last one minute


def test_large_datasets_are_simulated_in_their_layout(tmp_path):
    command = [sys.executable, "benchmarks/preprocess.py", "--datasets", str(tmp_path), "--records", "40"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines()[3:] if line[0] != " "}
    assert lines["code15"][1:3] == lines["mimic_iv_ecg"][1:3] == ["40", "40"]
    assert lines["code15"][-1] == lines["mimic_iv_ecg"][-1] == "none"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("api.py --run nowhere", "nowhere: no such folder"),
        ("api.py --clients 0", "--clients and --records: must be at least 1"),
        ("fit_rpeaks.py nowhere", "nowhere: no such folder"),
        ("fit_rpeaks.py . --write nowhere/weights.hpp", "nowhere: no such folder"),
        ("fit_rpeaks.py .", "nstdb/ma.hea: no such header file"),
        ("native.py nonsense", "unrecognized arguments: nonsense"),
        ("plain.py nowhere out.h5", "nowhere/records.csv: No such file"),
        ("plain.py nowhere out.h5 --records -1", "--records -1: must be at least 1"),
        ("plain.py . out.h5", "records.csv: has no column record"),
        ("preprocess.py --folder nowhere", "nowhere: no such folder"),
        ("preprocess.py --datasets nowhere", "nowhere: no such folder"),
        ("preprocess.py --files 0", "--files 0: must be at least 1"),
        ("preprocess.py --fs fast", "invalid int value: 'fast'"),
        ("rpeaks.py nowhere", "nowhere: no such folder"),
        ("rpeaks.py . --csv nowhere/beats.csv", "nowhere: no such folder"),
        ("rpeaks.py . --plot noise.png", "add --noise"),
        ("rpeaks.py . --detectors nonsense", "invalid choice: 'nonsense'"),
    ],
)
def test_wrong_folders_and_arguments_end_in_one_line_and_status_2(tmp_path, command, message):
    (tmp_path / "records.csv").write_text("name\nr00000\n")  # a table of another kind
    name, *arguments = command.split()
    script = [sys.executable, str(REPOSITORY / "benchmarks" / name), *arguments]
    result = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    lines = result.stderr.splitlines()
    if lines[0].startswith("usage: "):  # argparse prints how to call the script above its error
        lines = [line for line in lines if line.startswith(f"{name}: error: ")]
    assert (result.returncode, result.stdout, len(lines)) == (2, "", 1), result.stderr
    assert "error: " in lines[0]
    assert message in lines[0]


def test_batches_are_timed_and_the_other_side_follows_the_same_laws(tmp_path, rng):
    from benchmarks import batches

    x = rng.normal(size=(200, 2, 400)).astype(np.float16)
    changed = batches.plain_augmented(x, np.random.default_rng(0), 100.0)
    assert changed.shape == x.shape and changed.dtype == np.float32
    assert 0.9 < changed.std() / x.astype(np.float32).std() < 1.1
    command = [sys.executable, "benchmarks/batches.py", "--patients", "12", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for side in ("memory map", "one .npz per record", "memory map, augmented", "memory map, augmented by NumPy"):
        assert f"\n{side} " in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_cost_of_a_training_is_measured():
    command = [sys.executable, "benchmarks/train.py", "--networks", "cnn1d", "--seconds", "0.05", "--patients", "60"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("\ncnn1d ", "\nfetched ahead, augmented ", "\nfeeding alone: ", "\n2 processes "):
        assert text in done.stdout


def write_infarctions(folder, rng, folds):
    """A PTB-XL with a recording in each of the folds, every other one an infarction: upside down."""
    lines = ["ecg_id,patient_id,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    for number, fold in enumerate(folds):
        place = f"records100/00000/{number:05d}_lr"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        signal = twelve(rng, 1000) * (1 if number % 2 else -1)
        write_record((folder / place).parent, place.split("/")[-1], signal, 100, TWELVE)
        code = "NORM" if number % 2 else "IMI"
        lines.append(f"{number},{number},text,{{'{code}': 100.0}},{fold},{place},{place}")
    (folder / "ptbxl_database.csv").write_text("\n".join(lines))


@pytest.mark.slow
def test_networks_are_compared_on_ptbxl(tmp_path, rng):
    write_infarctions(tmp_path, rng, [1 + n // 4 if n < 32 else 9 + n // 44 for n in range(56)])
    command = [sys.executable, "benchmarks/ptbxl.py", "--raw", str(tmp_path), "--work", str(tmp_path / "work")]
    command += ["--networks", "cnn1d", "--seeds", "2", "--epochs", "2"]
    for _ in range(2):  # the second time it finds its runs finished
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "32 recordings to learn from, 2 of 5 classes" in done.stdout
        table = [line for line in done.stdout.splitlines() if line.startswith(("logistic regression ", "cnn1d "))]
        assert "1.000 (1.000 to 1.000)  [1.000, 1.000]" in table[0]
        assert len(table) == 2


@pytest.mark.slow
def test_pretraining_is_compared_with_training_from_scratch(tmp_path, rng):
    write_infarctions(tmp_path, rng, [1 + n // 5 if n < 35 else 8 + n % 4 // 2 for n in range(47)])
    command = [sys.executable, "benchmarks/pretraining.py", "--raw", str(tmp_path), "--work", str(tmp_path / "work")]
    command += ["--networks", "ecg_transformer", "--labelled", "folds 1-7", "--seeds", "1", "--epochs", "1", "2"]
    for _ in range(2):  # the second time it finds its runs finished
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (line,) = {line for line in done.stdout.splitlines() if line.startswith("ecg_transformer  ")}
        assert line.count(" to ") == 3
    runs_made = sorted(path.name for path in (tmp_path / "work").iterdir() if path.is_dir())
    assert runs_made == [
        "ecg_transformer-folds1-7-fine-tuned-0", "ecg_transformer-folds1-7-frozen-0",
        "ecg_transformer-folds1-7-scratch-0", "ecg_transformer-masked", "prepared",
    ]  # fmt: skip

"""What is asked of every dataset: settings, errors, splits, parts, the summary."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY
from layouts import labels_of, run, write_table

import data
import preprocess
import sources
from script import Stop


def test_a_raw_folder_that_was_moved_is_the_same_dataset(ptbxl, tmp_path, capsys):
    run("ptbxl", ptbxl, tmp_path / "out")
    before = (tmp_path / "out/failures.csv").read_text()
    ptbxl.rename(tmp_path / "moved")
    run("ptbxl", tmp_path / "moved", tmp_path / "out")
    assert "is up to date" in capsys.readouterr().err
    run("ptbxl", tmp_path / "moved", tmp_path / "again")
    assert (tmp_path / "again/failures.csv").read_text() == before


def test_the_summary_counts_by_fold_and_by_split(ptbxl, tmp_path, capsys):
    dataset = run("ptbxl", ptbxl, tmp_path / "out", "--data.validation", "9", "--data.test", "4")
    splits = dataset.summary.splits
    assert [splits[name].rows for name in ("train", "validation", "test")] == [3, 0, 1]
    assert splits["train"].classes == {"NORM": 1, "MI": 1, "STTC": 1, "CD": 1, "HYP": 1}
    printed = capsys.readouterr().out
    assert ["test", "1", "1", "0", "0", "1", "1", "0"] in [line.split() for line in printed.splitlines()]
    run("ptbxl", ptbxl, tmp_path / "all", "--data.target", "all")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "train", "validation", "test", "recordings", "prepared"] in lines
    assert len([line for line in lines if len(line) == 6]) == 1 + 71


@pytest.mark.parametrize("name", [name for name in sources.SOURCES if name != "demo"])
def test_an_empty_folder_stops_with_one_line(tmp_path, name):
    with pytest.raises((Stop, FileNotFoundError)) as caught:
        run(name, tmp_path, tmp_path / "out", *(["--data.split", "patients"]))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_which_nothing_can_be_read_stops_and_names_the_first_recording(tmp_path):
    write_table(tmp_path / "record_list.csv", [["subject_id", "study_id", "path"], ["1", "2", "files/p1/2"]])
    columns = ["study_id", *(f"report_{number}" for number in range(18))]
    write_table(tmp_path / "machine_measurements.csv", [columns, ["2", "Sinus rhythm", *[""] * 17]])
    with pytest.raises(Stop, match=r"none of 1 recordings can be read: files/p1/2\.hea: no such header file"):
        run("mimic_iv_ecg", tmp_path, tmp_path / "out")
    write_table(tmp_path / "tree/unified_label_mapping.csv", [["record", "label"], ["gone", "x"]])
    with pytest.raises(Stop, match=r"no recordings of folder there; first of 1 problems: gone: .* no recording here"):
        run("folder", tmp_path / "tree", tmp_path / "out")


def test_a_wrong_folder_is_named_from_the_root(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stop, match=rf"does not exist; is {tmp_path}/raw the folder of ptbxl\?"):
        run("ptbxl", Path("raw"), tmp_path / "out")
    with pytest.raises(Stop, match=rf"{tmp_path}/raw: no recordings of svdb there"):
        run("svdb", Path("raw"), tmp_path / "out")


@pytest.mark.parametrize("name", list(sources.SOURCES))
def test_every_dataset_has_its_settings(name):
    assert (REPOSITORY / "configs" / f"{name}.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.target", "nothing"], "data.target = 'nothing': ptbxl has superdiagnostic, subdiagnostic"),
        (["--data.arguments", '{"speed": 1}'], r"ptbxl has no speed \(rate\)"),
        (["--data.arguments", '{"rate": 250}'], "rate = 250: PTB-XL comes at 100 and at 500 Hz"),
        (["--recipe.window.kind", "beat", "--recipe.window.length_s", "1"], "tells superdiagnostic of rows of kind"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused_by_name(ptbxl, tmp_path, words, message):
    with pytest.raises(Stop, match=message):
        run("ptbxl", ptbxl, tmp_path / "out", *words)


def test_a_fraction_is_drawn_alike_from_all_labels_and_the_same_every_time(demo_folder, tmp_path):
    words = ["--data.folds", "2", "--data.train", "0", "--data.validation", "1"]
    whole = run("demo", demo_folder, tmp_path / "whole", *words)
    part = run("demo", demo_folder, tmp_path / "part", *words, "--fraction", "0.25")
    again = run("demo", demo_folder, tmp_path / "again", *words, "--fraction", "0.25")
    assert part.record.tolist() == again.record.tolist()
    assert set(part.record) < set(whole.record)
    counts = Counter(labels_of(whole).values())
    chosen = Counter(labels_of(part).values())
    assert all(abs(chosen[labels] - n / 4) < 1 for labels, n in counts.items())
    assert len(part) == -(-len(whole) // 4)
    first = run("demo", demo_folder, tmp_path / "first", *words, "--limit", "7")
    assert first.record.tolist() == whole.record.tolist()[:7]


def test_a_dry_run_says_what_and_writes_nothing(ptbxl, tmp_path, capsys):
    preprocess.main(["--dataset", "ptbxl", "--data.raw", str(ptbxl), "--data.dir", str(tmp_path / "out"), "--dry_run"])
    said = capsys.readouterr().err
    assert "3 recordings of 3 patients" in said
    assert "nothing was written" in said
    assert not (tmp_path / "out").exists()


def test_inspect_prints_the_table_again_and_draws(demo_folder, tmp_path, capsys):
    words = ["--dataset", "demo", "--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "out")]
    preprocess.main(words)
    table = capsys.readouterr().out.split("\n89 rows")[0].split("\n")
    preprocess.main(["--inspect", str(tmp_path / "out")])
    assert capsys.readouterr().out.split("\n")[: len(table) - 1] == table[:-1]
    for name in ("classes.png", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(Stop, match="no prepared dataset"):
        preprocess.main(["--inspect", str(tmp_path)])


def test_copies_across_folds_are_named(demo_folder, tmp_path, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(demo_folder, raw)
    with (raw / "records.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    name = rows[1][0]
    for path in list(raw.glob(f"{name}.*")):
        content = path.read_bytes()
        content = content.replace(name.encode(), b"copy") if path.suffix == ".hea" else content
        path.with_name(f"copy{path.suffix}").write_bytes(content)
    write_table(raw / "records.csv", [*rows, ["copy", "somebody else", *rows[1][2:]]])
    words = ["--dataset", "demo", "--data.raw", str(raw), "--data.dir", str(tmp_path / "out"), "--check_leaks"]
    preprocess.main(words)
    said = capsys.readouterr().out
    assert f"{name}.hea" in said and "copy.hea" in said
    assert said.count(".hea") == 2


@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_share_the_parts_and_end_in_the_same_bytes(demo_folder, tmp_path, n_processes):
    """As on several machines that see one folder; parts of a few recordings each."""
    script = "import parts, preprocess, script; parts.PART_BYTES = 50_000; script.run(preprocess.main)"
    words = ["--data.raw", str(demo_folder), "--data.folds", "5", "--recipe.scale.over", "dataset"]

    def start(folder, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", script, *words, "--data.dir", str(folder)],
            env={**os.environ, **environment},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    alone = start(tmp_path / "alone")
    ranks = [
        start(tmp_path / "shared", RANK=str(rank), WORLD_SIZE=str(n_processes), LOCAL_WORLD_SIZE=str(n_processes))
        for rank in reversed(range(n_processes))
    ]
    said = [process.communicate(timeout=120) for process in (alone, *ranks)]
    assert [process.returncode for process in (alone, *ranks)] == [0] * (n_processes + 1), said

    def content(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "prepare.log.json"}

    assert len(content(tmp_path / "alone")) > 2 * n_processes
    assert content(tmp_path / "shared") == content(tmp_path / "alone")
    assert not said[1][0]  # only the first process talks


def test_a_download_is_for_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Stop, match="--download: is for one process"):
        preprocess.main(["--dataset", "mitdb", "--download", "--data.raw", str(tmp_path)])


def test_a_full_disk_stops_and_leaves_no_half_part(demo_folder, tmp_path):
    """A quota on the size of files: HDF5 finds out when it writes, or as late as when it closes the file."""
    words = ["--dataset", "demo", "--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "out")]
    script = (
        "import resource, sys, script, preprocess\nresource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
    )
    script += "script.run(lambda: preprocess.main(sys.argv[2:]))"
    preprocess.main([*words[:-1], str(tmp_path / "whole")])
    (size,) = (part.stat().st_size for part in (tmp_path / "whole").glob("part-*"))
    for quota in (0, size // 2, size - 100):
        command = [sys.executable, "-c", script, str(quota), *words]
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        last = result.stderr.splitlines()[-1]
        assert last == f"error: {tmp_path}/out/part-00000.h5: cannot be written: File too large"
        assert not [path.name for path in (tmp_path / "out").iterdir()]
    preprocess.main(words)
    assert len(data.Dataset(tmp_path / "out")) == len(list(demo_folder.glob("*.hea")))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("ptbxl", {"rate": [1]}, r"data.arguments: rate = \[1\]: .*integer"),
        ("ptbxl", {"rate": "100"}, "data.arguments: rate = '100': .*integer"),
        ("ptbxl", {"rates": 100}, r"ptbxl has no rates \(rate\)"),
        ("folder", {"default_label": 5}, "data.arguments: default_label = 5: .*string"),
        ("folder", {"default_label": "x", "fs": "abc"}, "data.arguments: fs = 'abc'"),
        ("folder", {"default_label": "x", "fs": 0}, "data.arguments: fs = 0: must be positive"),
        ("folder", {"default_label": "x", "units_per_mv": -1}, "data.arguments: units_per_mv = -1: must be positive"),
    ],
)
def test_an_argument_of_a_dataset_that_means_nothing_stops(tmp_path, name, arguments, words):
    with pytest.raises(Stop, match=words):
        run(name, tmp_path, tmp_path / "out", "--data.arguments", json.dumps(arguments))

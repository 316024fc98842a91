"""Folders held by one process, files that appear whole."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, heed_ctrl_c

import script
from script import Stop

HOLD = """
import sys, time, script
with script.hold(script.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "folder")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_is_held_names_its_holder(tmp_path, holder):
    message = rf"folder: is in use by process {holder.pid} on \S+ since \d{{4}}-"
    with pytest.raises(Stop, match=message), script.hold(tmp_path / "folder"):
        pass
    with script.hold(tmp_path / "other"):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_dead_holder_is_followed_by_the_next(tmp_path, holder, how):
    holder.send_signal(how)
    holder.wait()
    with script.hold(tmp_path / "folder"):
        assert str(os.getpid()) in (tmp_path / "folder" / script.LOCK).read_text()
    assert not (tmp_path / "folder").exists() or not list((tmp_path / "folder").iterdir())


def test_a_folder_made_for_nothing_is_removed_and_one_with_files_stays(tmp_path):
    with pytest.raises(Stop, match="no"), script.hold(tmp_path / "a" / "b"):
        raise Stop("no")
    assert not (tmp_path / "a/b").exists()
    with script.hold(tmp_path / "c"):
        (tmp_path / "c/file").write_text("x")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["file"]


def test_one_of_many_processes_at_once_holds_a_folder(tmp_path):
    """Each appends to a file with a pause between reading and writing: a second holder would lose a line."""
    text = (
        "import sys, time, script\nfolder = script.Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        with script.hold(folder):\n"
        "            lines = (folder / 'x').read_text() if (folder / 'x').exists() else ''\n"
        "            time.sleep(0.002)\n"
        "            (folder / 'x').write_text(lines + '+')\n"
        "            print('+', end='')\n"
        "    except script.Stop:\n"
        "        time.sleep(0.001)\n"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "f")]
    crowd = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    written = "".join(process.communicate()[0] for process in crowd)
    assert written
    assert (tmp_path / "f/x").read_text() == written


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with script.aside(tmp_path / "a") as first, script.aside(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/old").write_text("old")
    with pytest.raises(ZeroDivisionError), script.folder_aside(tmp_path / "report") as folder:
        (folder / "new").write_text("new")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "old"]
    with script.folder_aside(tmp_path / "report") as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "new"]


def run_twice(*words):
    """Run a script twice at once; returns status and standard error of each, the good one first.

    The one that stops names the holder, or says `another process` in the moment before the holder has written its name.
    """
    command = [sys.executable, *words]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[1] for process in both]
    return sorted((process.returncode, answer) for process, answer in zip(both, answers))


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_preprocess_at_once_one_makes_the_dataset_and_one_stops(mitdb_like, tmp_path, attempt):
    from data import Dataset

    words = ["--dataset", "mitdb", "--data.raw", mitdb_like, "--data.dir", tmp_path / "p", "--data.folds", "3"]
    (good, _), (bad, said) = run_twice("preprocess.py", *map(str, words))
    assert good == 0
    assert (bad, "is in use by" in said) == (2, True) or (bad, "up to date" in said) == (0, True), said
    dataset = Dataset(tmp_path / "p")
    assert len(dataset) > 300
    assert all(dataset.signals(np.array([row])).any() for row in range(len(dataset)))
    assert not list((tmp_path / "p").glob("*.tmp")) and not (tmp_path / "p" / script.LOCK).exists()


def test_of_two_trainings_at_once_one_trains_and_one_stops(prepared_beats, tmp_path):
    words = [*prepared_beats, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "16"]
    words += ["--training.epochs", "2", "--training.threads", "1"]
    (good, _), (bad, said) = run_twice("train.py", *words)
    assert (good, bad) == (0, 2)
    assert "is in use by" in said or "holds a finished run" in said
    lines = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2"]

"""Folds and grids: equal to train.py by hand, interrupted and continued, shared by processes, refused before work."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, heed_ctrl_c
from layouts import write_ptbxl_of_all_targets
from test_resume import raise_signal_at
from test_train import metrics_of, steps

import bundle
import checks
import plans
import preprocess
import script
import sources
import study
import train
from data import Dataset
from script import Stop

QUICK = ["--training.epochs", "1", "--training.batch_size", "4", "--training.threads", "1"]
RATES = {"training.learning_rate": [0.001, 0.003]}


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores_of(run):
    """What the report of a run says, but for the name of the run."""
    return {key: value for key, value in json.loads((run / "report/metrics.json").read_text()).items() if key != "run"}


def write_grid(folder, prepared, grid, **training):
    """A file of a grid on a prepared dataset."""
    words = dict(zip(prepared[::2], prepared[1::2]))
    data = {"raw": words["--data.raw"], "dir": words["--data.dir"], "train": [0, 1, 2, 3, 4, 5, 6]}
    training = {"epochs": 1, "batch_size": 4, "threads": 1, **training}
    tree = {"data": data, "training": training, "grid": grid}
    (folder / "grid.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return ["--config", str(folder / "grid.yaml"), "--run_dir", str(folder / "study")]


# ------------------------------------------------------------------------------------------------------------ folds


@pytest.fixture(scope="module")
def five_folds(prepared_demo, tmp_path_factory):
    """Ten folds, two of them tested at a time."""
    folder = tmp_path_factory.mktemp("folds") / "study"
    study.main([*prepared_demo, *QUICK, "--run_dir", str(folder), "--folds", "5"])
    return folder


def test_a_fold_has_the_scores_of_train_py_by_hand(five_folds, prepared_demo, tmp_path):
    words = ["--data.train", '["0","1","6","7","8","9"]', "--data.validation", '["4","5"]', "--data.test", '["2","3"]']
    train.main([*prepared_demo, *QUICK, *words, "--run_dir", str(tmp_path / "by_hand")])
    assert scores_of(five_folds / "fold-2-3") == scores_of(tmp_path / "by_hand")
    assert steps(five_folds / "fold-2-3") == steps(tmp_path / "by_hand")


def test_every_row_is_tested_once_and_never_learnt_from_in_that_run(five_folds, prepared_demo):
    plan, _, _ = study.plan_of([*prepared_demo, *QUICK, "--run_dir", str(five_folds), "--folds", "5"])
    dataset = Dataset(*plan[0].settings.data_dirs)
    tested = []
    for run in plan:
        data = run.settings.data
        rows = dataset.splits(data.train, data.validation, data.test)
        assert np.array_equal(np.sort(np.concatenate([*rows.values()])), np.arange(len(dataset)))
        tested.append(rows["test"])
    assert np.array_equal(np.sort(np.concatenate(tested)), np.arange(len(dataset)))
    assert sum(int(row["rows"]) for row in table_of(five_folds / "folds.csv")[:-2]) == len(dataset)


def test_the_table_of_folds_ends_with_mean_and_sample_deviation(five_folds):
    *folds, mean, deviation = table_of(five_folds / "folds.csv")
    assert [row["fold"] for row in folds] == ["0-1", "2-3", "4-5", "6-7", "8-9"]
    assert [(row["fold"], row["state"]) for row in (mean, deviation)] == [
        ("mean", "5 of 5 folds"), ("deviation", "5 of 5 folds"),
    ]  # fmt: skip
    for name in ("accuracy", "macro_f1", "macro_average_precision"):
        own = [json.loads((five_folds / f"fold-{row['fold']}/report/metrics.json").read_text())[name] for row in folds]
        assert [float(row[name]) for row in folds] == own
        assert float(mean[name]) == pytest.approx(sum(own) / 5)
        assert float(deviation[name]) == pytest.approx(np.sqrt(np.var(own) * 5 / 4))


def test_the_score_of_a_challenge_has_a_mean_over_the_folds_too(five_folds, prepared_demo, tmp_path):
    shutil.copytree(five_folds, tmp_path / "study")
    plan, *_ = study.plan_of([*prepared_demo, *QUICK, "--run_dir", str(tmp_path / "study"), "--folds", "5"])
    for run, score in zip(plan, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True):
        report = json.loads(run.metrics.read_text())
        run.metrics.write_text(json.dumps({**report, "challenge": {"CinC 2017": score}}))
    *_, mean, deviation = study.fold_table(plan, [plans.FINISHED] * 5)
    assert mean["CinC 2017"] == pytest.approx(0.5)
    assert deviation["CinC 2017"] == pytest.approx(np.sqrt(0.1))
    assert not {"rows", "epoch", "validation_loss"} & mean.keys()


def test_finished_folds_are_left_as_they_are(five_folds, prepared_demo, capsys):
    before = [(path, path.stat().st_mtime_ns) for path in sorted(five_folds.rglob("*.*")) if path.parent != five_folds]
    study.main([*prepared_demo, *QUICK, "--run_dir", str(five_folds), "--folds", "5"])
    said = capsys.readouterr().out
    assert said.startswith("5 runs, 5 finished\n| fold | state | rows | epoch |") and "| mean | 5 of 5 folds |" in said
    after = [(path, path.stat().st_mtime_ns) for path in sorted(five_folds.rglob("*.*")) if path.parent != five_folds]
    assert before == after


def test_variants_follow_their_fold_and_paced_patients_are_learnt_where_the_settings_say_so(prepared_beats):
    folds = [b"0", b"0+", b"1", b"1+", b"2", b"2+", b"paced", b"DS2"]
    dataset = Dataset(Path(prepared_beats[prepared_beats.index("--data.dir") + 1]))
    dataset.fold = np.array(folds)[np.arange(len(dataset)) % 8]
    dataset.labels = np.ones_like(dataset.labels)
    dataset.patient = dataset.fold
    words = [*prepared_beats[:-6], "--data.train", '["0","0+","paced"]']  # without its own folds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "open_dataset", lambda _: dataset)
        plan, _, _ = study.plan_of([*words, "--folds", "3"])
    chosen = [(run.settings.data.train, run.settings.data.validation, run.settings.data.test) for run in plan]
    assert chosen == [
        (("2", "2+", "paced"), ("1",), ("0",)),
        (("0", "0+", "paced"), ("2",), ("1",)),
        (("1", "1+", "paced"), ("0",), ("2",)),
    ]


def test_the_owners_folds_are_taken_by_number():
    fold = np.array([str(n).encode() for n in range(1, 11)])
    official = SimpleNamespace(folder="prepared/ptbxl", fold=fold, summary=SimpleNamespace(data={"split": "official"}))
    assert plans.fold_groups(official, 10) == [(str(n),) for n in range(1, 11)]
    with pytest.raises(Stop, match=r"prepared/ptbxl has folds 1, 10, 2, .*: possible are 5, 10$"):
        plans.fold_groups(official, 4)
    official.fold = np.array([b"DS1", b"DS2"])
    with pytest.raises(Stop, match=r"has folds DS1, DS2: three or more that are numbers are needed$"):
        plans.fold_groups(official, 4)


# ------------------------------------------------------------------------------------------------------------ grids


@pytest.fixture(scope="module")
def rates(prepared_demo, tmp_path_factory):
    """A grid of two learning rates, run whole."""
    folder = tmp_path_factory.mktemp("grid")
    study.main(write_grid(folder, prepared_demo, RATES))
    return folder / "study"


def test_a_run_of_a_grid_has_the_scores_of_train_py_by_hand(rates, prepared_demo, tmp_path):
    train.main([*prepared_demo, *QUICK, "--training.learning_rate", "0.003", "--run_dir", str(tmp_path / "by_hand")])
    assert scores_of(rates / "learning_rate=0.003") == scores_of(tmp_path / "by_hand")
    assert metrics_of(rates / "learning_rate=0.003") == metrics_of(tmp_path / "by_hand")


def test_the_table_of_a_grid_has_the_best_validation_score_first(rates):
    table = table_of(rates / "grid.csv")
    assert {row["run"] for row in table} == {"learning_rate=0.001", "learning_rate=0.003"}
    scores = [float(row["validation_macro_f1"]) for row in table]
    assert scores == sorted(scores, reverse=True)
    for row in table:
        assert row["state"] == "finished" and row["run"] == f"learning_rate={row['training.learning_rate']}"
        assert row["validation_macro_f1"] == metrics_of(rates / row["run"])[0]["validation_macro_f1"]
        assert float(row["test_macro_f1"]) == scores_of(rates / row["run"])["macro_f1"]


def test_a_grid_varies_networks_and_their_arguments(prepared_demo, tmp_path):
    grid = {"model.name": ["cnn1d", "resnet1d"], "model.arguments.dropout": [0, 0.5], "data.train": [[0, 1], [2]]}
    plan, path, _ = study.plan_of(write_grid(tmp_path, prepared_demo, grid))
    assert path == tmp_path / "study/grid.csv"
    assert [run.folder.name for run in plan][:3] == [
        "name=cnn1d,dropout=0,train=0-1", "name=cnn1d,dropout=0,train=2", "name=cnn1d,dropout=0.5,train=0-1",
    ]  # fmt: skip
    assert len({run.folder for run in plan}) == 8
    assert plan[-1].settings.model.arguments == {"dropout": 0.5} and plan[-1].settings.data.train == ("2",)


def test_a_grid_that_is_stopped_goes_on_with_the_same_command_in_the_same_bits(
    rates, prepared_demo, tmp_path, monkeypatch, capsys
):
    words = write_grid(tmp_path, prepared_demo, RATES)
    raise_signal_at(monkeypatch, signal.SIGTERM, 2)
    with pytest.raises(SystemExit) as left:
        study.main(words)
    monkeypatch.undo()
    assert left.value.code == 128 + signal.SIGTERM
    assert "stopped after epoch 1, step 3 of" in capsys.readouterr().out
    assert not bundle.is_finished(tmp_path / "study/learning_rate=0.001/last.pt")
    study.main(words)
    for name in ("learning_rate=0.001", "learning_rate=0.003"):
        assert steps(rates / name) == steps(tmp_path / "study" / name)
        assert scores_of(rates / name) == scores_of(tmp_path / "study" / name)
    assert len(table_of(tmp_path / "study/grid.csv")) == 2


def test_a_run_that_was_killed_before_its_report_gets_it(rates, prepared_demo, tmp_path):
    words = write_grid(tmp_path, prepared_demo, RATES)
    shutil.copytree(rates, tmp_path / "study")
    shutil.rmtree(tmp_path / "study/learning_rate=0.003/report")
    (tmp_path / "study/grid.csv").unlink()
    study.main(words)
    assert scores_of(tmp_path / "study/learning_rate=0.003") == scores_of(rates / "learning_rate=0.003")
    assert (tmp_path / "study/grid.csv").read_text() == (rates / "grid.csv").read_text()


def started(words):
    return subprocess.Popen(
        [sys.executable, "study.py", *words], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_a_grid_and_do_no_run_twice(prepared_demo, tmp_path):
    words = write_grid(tmp_path, prepared_demo, {"training.seed": [0, 1, 2, 3]})
    processes = [started(words) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    begun = [line.split(",")[0] for out, _ in said for line in out.splitlines() if line.startswith("run ")]
    assert sorted(begun) == [f"run {n}/4: {tmp_path}/study/seed={n - 1}" for n in (1, 2, 3, 4)]
    for n in range(4):
        log = (tmp_path / f"study/seed={n}/log.jsonl").read_text()
        assert log.count('"event": "start"') == 1
    study.main(words)
    assert [row["state"] for row in table_of(tmp_path / "study/grid.csv")] == ["finished"] * 4


def test_a_killed_process_leaves_a_grid_that_another_one_finishes(rates, prepared_demo, tmp_path):
    words = write_grid(tmp_path, prepared_demo, RATES)
    process = started(words)
    while not (tmp_path / "study/learning_rate=0.001/config.yaml").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    study.main(words)
    for name in ("learning_rate=0.001", "learning_rate=0.003"):
        assert steps(rates / name) == steps(tmp_path / "study" / name)


def test_a_run_that_another_process_holds_is_left_to_it_and_named(rates, prepared_demo, tmp_path, capsys):
    words = write_grid(tmp_path, prepared_demo, RATES)
    shutil.copytree(rates / "learning_rate=0.001", tmp_path / "study/learning_rate=0.001")
    with script.hold(tmp_path / "study/learning_rate=0.003"):
        study.main(words)
    assert "other processes are at work on 1 of 2 runs" in capsys.readouterr().out
    table = table_of(tmp_path / "study/grid.csv")
    assert [row["state"] for row in table] == ["finished", "in use"] and table[1]["validation_macro_f1"] == ""


def test_a_run_that_fails_is_named_and_the_others_go_on(prepared_demo, tmp_path, monkeypatch, capsys):
    words = write_grid(tmp_path, prepared_demo, RATES)
    report = train.report

    def failing(folder, settings):
        if settings.training.learning_rate == 0.001:
            raise Stop("a loss is not finite")
        report(folder, settings)

    monkeypatch.setattr(train, "report", failing)
    with pytest.raises(Stop, match=r"^1 of 2 runs failed; .*grid.csv says why$"):
        study.main(words)
    table = table_of(tmp_path / "study/grid.csv")
    assert [row["state"] for row in table] == ["finished", "failed: a loss is not finite"]
    assert "run 2/2: " in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- whole experiments

TARGETS = ["rhythm", "form"]


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory):
    """A small PTB-XL as its owner publishes it."""
    return write_ptbxl_of_all_targets(tmp_path_factory.mktemp("ptbxl"), np.random.default_rng(1))


def write_experiment(folder, targets=TARGETS, limit=None, **data):
    """The experiment of the six tasks, cut to some of them, a small network and one epoch."""
    tree = yaml.safe_load((REPOSITORY / "configs/experiments/ptbxl.yaml").read_text())
    tree["model"] = {"name": "cnn1d"}
    tree["training"] |= {"epochs": 1, "batch_size": 8, "threads": 1}
    tree["data"] |= {"dir": str(folder / "prepared"), "limit": limit, **data}
    tree["grid"] |= {"data.target": targets}
    (folder / "grid.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return ["--config", str(folder / "grid.yaml"), "--run_dir", str(folder / "study")]


def test_targets_are_prepared_trained_and_scored_by_one_command_and_the_second_start_does_nothing(
    ptbxl, tmp_path, capsys
):
    words = [*write_experiment(tmp_path), "--data.raw", str(ptbxl)]
    study.main(words)
    said = capsys.readouterr()
    assert said.out.count("in prepare.log.json") == 2 and "2 runs, 0 finished" in said.out
    for name, classes in (("rhythm", ("AFIB", "STACH", "SR")), ("form", ("ABQRS", "NDT"))):
        dataset = Dataset(tmp_path / "prepared" / name)
        assert {dataset.classes[k] for k in np.flatnonzero(dataset.labels.any(axis=0))} == set(classes)
        report = json.loads((tmp_path / f"study/target={name}/report/metrics.json").read_text())
        assert report["dataset"] == str(tmp_path / "prepared" / name) and report["folds"] == ["10"]
    table = table_of(tmp_path / "study/grid.csv")
    assert [(row["data.target"], row["state"], row["rows"]) for row in table] == [
        ("rhythm", "finished", "4"), ("form", "finished", "4"),
    ]  # fmt: skip
    assert all(row["test_macro_auroc"] for row in table)

    files = [*(tmp_path / "prepared").rglob("*.*"), *(tmp_path / "study").rglob("*.*")]
    before = [(path, path.stat().st_mtime_ns) for path in files if path.name != "grid.csv"]
    study.main(words)
    said = capsys.readouterr()
    assert said.err.count("is up to date: nothing to do") == 2 and "2 runs, 2 finished" in said.out
    assert [(path, path.stat().st_mtime_ns) for path, _ in before] == before
    assert table_of(tmp_path / "study/grid.csv") == table

    study.main(words[:4])  # prepared datasets do without the recordings
    assert "2 runs, 2 finished" in capsys.readouterr().out


@pytest.mark.slow
def test_the_experiment_runs_on_real_recordings(real_data, tmp_path, capsys):
    """Fold 10 is not there: fold 9 is the test."""
    folds = {"train": [1, 2, 3, 4, 5, 6, 7], "validation": [8], "test": [9]}
    words = write_experiment(tmp_path, ["superdiagnostic", "rhythm"], limit=400, **folds)
    study.main([*words, "--data.raw", str(real_data / "ptb-xl-2k")])
    table = table_of(tmp_path / "study/grid.csv")
    assert [row["state"] for row in table] == ["finished"] * 2
    assert float(table[0]["test_macro_auroc"]) > 0.6  # of untrained networks 0.5


def test_without_data_dir_a_target_is_prepared_beside_the_dataset():
    plan, _, settings = study.plan_of(["--config", str(REPOSITORY / "configs/experiments/ptbxl.yaml")])
    assert [(str(run.settings.data.dir), run.settings.data.target) for run in plan][:2] == [
        ("prepared/ptbxl-all", "all"), ("prepared/ptbxl-diagnostic", "diagnostic"),
    ]  # fmt: skip
    assert settings.data.dir is None


EXPERIMENTS = {
    "ptbxl": [f"target={name}" for name in sources.SOURCES["ptbxl"].targets],
    "ptbxl-s4": [f"target={name}" for name in sources.SOURCES["ptbxl"].targets],
    "code15": ["name=resnet1d"],
    "cinc2021": ["name=se_resnet1d"],
}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs/experiments").glob("*.yaml")), ids=lambda path: path.stem
)
def test_an_experiment_is_valid_and_has_its_runs(path):
    plan, table, _ = study.plan_of(["--config", str(path)])
    study.check_settings(plan)
    assert {str(run.folder) for run in plan} == {f"runs/{path.stem}/{name}" for name in EXPERIMENTS[path.stem]}
    assert table == Path(f"runs/{path.stem}/grid.csv")


def test_a_dataset_that_another_process_prepares_is_waited_for_and_the_others_come_first(monkeypatch, tmp_path, capsys):
    made, waited = [], []
    monkeypatch.setattr(preprocess, "prepare", made.append)
    held = script.hold(tmp_path / "first")
    held.__enter__()

    def let_go(seconds):
        waited.append(list(made))
        if len(waited) == 3:
            held.__exit__(None, None, None)

    monkeypatch.setattr(study.time, "sleep", let_go)
    study.prepare({tmp_path / "first": "first", tmp_path / "second": "second"})
    assert made == ["second", "first"] and waited == [["second"]] * 3
    assert capsys.readouterr().err.count("waiting: ") == 1


@pytest.mark.parametrize(
    ("targets", "words", "message"),
    [
        (["rythm"], [], r"data.target = 'rythm': ptbxl has .*, rhythm, all; did you mean rhythm\?"),
        (TARGETS, ["--data.dir", "a,b"], "data.dir = a,b: must be one folder where data.target is varied"),
        (TARGETS, ["--data.target", "form"], "data.target is set in the command line too"),
        (TARGETS, ["--data.raw", "nowhere"], "nowhere: no such folder; where are the recordings of ptbxl"),
        (TARGETS, ["--model.name", "cnn"], "target=rhythm: model 'cnn': unknown; did you mean cnn1d"),
        (TARGETS, ["--evaluation.challenge", "none.csv"], "none.csv: cannot be read as a table of weights"),
        (TARGETS, ["--data.raw", ""], "prepared/rhythm: no prepared dataset; with --data.raw FOLDER it is prepared"),
    ],
)
def test_an_experiment_that_cannot_be_run_is_refused_before_anything_is_prepared(
    ptbxl, tmp_path, targets, words, message
):
    raw = [] if "--data.raw" in words else ["--data.raw", str(ptbxl)]
    words = [] if words == ["--data.raw", ""] else words
    with pytest.raises(Stop, match=message) as stop:
        study.main([*write_experiment(tmp_path, targets), *raw, *words])
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "study").exists() and not (tmp_path / "prepared").exists()


def test_targets_and_folders_in_one_grid_are_refused(tmp_path):
    words = write_experiment(tmp_path)
    tree = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    tree["grid"]["data.dir"] = ["a", "b"]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(Stop, match="data.target and data.dir; each target has a folder of its own"):
        study.main(words)


def test_a_folder_with_the_rows_of_another_target_is_refused(ptbxl, tmp_path):
    words = write_experiment(tmp_path, ["form"])
    study.prepare({tmp_path: study.plan_of([*words, "--data.raw", str(ptbxl)])[0][0].settings})
    (tmp_path / "prepared/form").rename(tmp_path / "prepared/rhythm")
    words = write_experiment(tmp_path, ["rhythm"])
    with pytest.raises(Stop, match=r"prepared/rhythm was prepared with data.target = form, not rhythm; choose another"):
        study.main(words)
    with pytest.raises(Stop, match=r"prepared/rhythm holds another dataset \(data.target: form -> rhythm"):
        study.main([*words, "--data.raw", str(ptbxl)])
    assert not (tmp_path / "study").exists()


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"training.learning_rat": [1]}, r"training.learning_rat; did you mean training.learning_rate\?"),
        ({"training.learning_rate": []}, r"training.learning_rate = \[\]: must be a list of one or more values"),
        ({"training.learning_rate": 0.1}, "grid: training.learning_rate = 0.1: must be a list of one or more values"),
        ({"training.learning_rate": ["fast"]}, "grid: training.learning_rate = 'fast': .* valid number"),
        ({"training.learning_rate": [0.1, -1]}, "grid: training.learning_rate = -1: .* greater than 0"),
        ({"training.learning_rate": [0.001, "1e-3"]}, "two runs are learning_rate=0.001; each value once"),
        ({"training.augmentation": [{"noise": 1}]}, "unknown setting training.augmentation; name its settings, e.g. "),
        ({"data.target": ["label"]}, r"data.target = 'label': demo has labels; did you mean labels\?"),
        ({"data.limit": [5, 10]}, "data.limit does not change a training of prepared data"),
        ({"model.name": ["cnn1d", "resnet"]}, "name=resnet: model 'resnet': unknown; did you mean"),
        ({"model.arguments.chanels": [8]}, "no argument 'chanels'; did you mean channels"),
        ({"model.arguments": [{}], "model.arguments.kernel": [8]}, "model.arguments and one of its names"),
        ({"training.batch_size": [4, 9999]}, "batch_size=9999: training.batch_size = 9999: there are only"),
        ({"data.validation": [[]]}, "data.validation is empty, and its rows are what ranks the runs"),
        ({}, "grid: must name settings and list their values"),
        (None, "grid: must name settings and list their values"),
        ([1], "grid: must name settings and list their values"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_run_is_refused_before_the_first_training(prepared_demo, tmp_path, grid, message):
    words = write_grid(tmp_path, prepared_demo, grid)
    with pytest.raises(Stop, match=message) as stop:
        study.main(words)
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "study").exists()


def test_teachers_that_do_not_fit_are_refused_before_the_first_training(prepared_demo, demo_run, tmp_path):
    words = write_grid(tmp_path, prepared_demo, {"training.teachers": [[], [str(tmp_path / "none")]]})
    with pytest.raises(Stop, match=r"study/teachers=\S+none: \S+/none: no run there"):
        study.main(words)
    words = [*prepared_demo, *QUICK, "--training.teachers", str(demo_run), "--folds", "5"]
    with pytest.raises(Stop, match=r"fold-0-1: training.teachers: \S+ was trained with \d+ patients of this run's val"):
        study.main([*words, "--run_dir", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()


def test_a_setting_of_the_grid_cannot_be_given_elsewhere_too(prepared_demo, tmp_path, monkeypatch):
    words = write_grid(tmp_path, prepared_demo, RATES)
    with pytest.raises(Stop, match="training.learning_rate is set in the command line too"):
        study.main([*words, "--training.learning_rate", "0.1"])
    monkeypatch.setenv("ECG_TRAINING__LEARNING_RATE", "0.1")
    with pytest.raises(Stop, match="training.learning_rate is set in the environment too"):
        study.main(words)


def test_a_run_with_other_settings_is_not_taken_for_one_of_the_study(rates, prepared_demo, tmp_path):
    shutil.copytree(rates, tmp_path / "study")
    words = write_grid(tmp_path, prepared_demo, RATES, weight_decay=0.1)
    message = r"=0.001 has other settings \(training.weight_decay: 0.01 -> 0.1\); choose another --run_dir"
    with pytest.raises(Stop, match=message):
        study.main(words)


def test_a_folder_that_is_a_run_is_not_taken_for_a_study(rates, prepared_demo, tmp_path):
    words = write_grid(tmp_path, prepared_demo, RATES)
    with pytest.raises(Stop, match="learning_rate=0.001: is a run; choose another --run_dir"):
        study.main([*words[:2], "--run_dir", str(rates / "learning_rate=0.001")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "20"], "--folds 20: .* has folds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9: possible are 5, 10; or prepare"),
        (["--folds", "2"], "--folds 2: .*: possible are 5, 10"),
        (["--folds", "0"], "--folds 0: .*: possible are 5, 10"),
        (["--folds", "5", "--data.dir", "none"], "none .*: no prepared dataset .*; run preprocess.py first"),
        (["--folds", "5", "--training.batch_size", "999"], "fold-0-1: training.batch_size = 999: there are only"),
        (["--folds", "5", "--data.test", "1"], "--folds 5: chooses .* data.test, which the command line sets too"),
        ([], "give --folds N, or --config with a file that has a section grid:"),
    ],
)
def test_folds_that_cannot_be_run_are_refused(prepared_demo, tmp_path, words, message):
    with pytest.raises(Stop, match=message):
        study.main([*prepared_demo, "--run_dir", str(tmp_path / "study"), *words])
    assert not (tmp_path / "study").exists()


def test_folds_of_a_grid_are_refused(prepared_demo, tmp_path):
    with pytest.raises(Stop, match="--folds 5: .*grid.yaml has a section grid, and a study has folds or a grid"):
        study.main([*write_grid(tmp_path, prepared_demo, RATES), "--folds", "5"])


def test_a_fold_without_a_class_to_learn_is_refused_and_without_one_to_test_is_told(prepared_demo, tmp_path, capsys):
    words = [*prepared_demo, "--run_dir", str(tmp_path / "study"), "--folds", "10"]
    plan, _, _ = study.plan_of(words)
    dataset = Dataset(*plan[0].settings.data_dirs)
    name = dataset.classes[0]
    first = np.isin(dataset.fold, [b"3", b"4"])
    dataset.labels[:, 0] = 0
    dataset.labels[first, 0] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "open_dataset", lambda _: dataset)
        with pytest.raises(Stop, match=f"fold 3: no row of class {name} is left to learn from; all are in folds 3, 4:"):
            study.main(words)
        assert f"warning: fold 2 has no row of {name}" in capsys.readouterr().err
        study.plan_of([*words, "--data.scored_classes", json.dumps(list(dataset.classes[1:]))])
    assert not (tmp_path / "study").exists()


def test_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Stop, match="study.py is not for torchrun"):
        study.main(["--folds", "5"])

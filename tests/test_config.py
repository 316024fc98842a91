import argparse
from pathlib import Path

import pytest

import config
from recipe import Recipe, differences, flatten
from script import Stop, nearest

REPOSITORY = Path(config.__file__).parent


def load(*words, parser=None):
    return config.load(parser or argparse.ArgumentParser(), list(words))[0]


def write(path, text):
    path.write_text(text)
    return str(path)


def test_without_arguments_the_defaults_hold():
    assert load() == config.Settings()
    assert load().data_dirs == [Path("prepared/demo")]
    assert load("--data.dir", "a, b").data_dirs == [Path("a"), Path("b")]
    assert load().run_folder == Path("runs/demo")


def test_command_line_beats_environment_beats_yaml_beats_default(tmp_path, monkeypatch):
    yaml = write(tmp_path / "s.yaml", "training: {epochs: 3, batch_size: 32, seed: 5}")
    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "4")
    monkeypatch.setenv("ECG_TRAINING__BATCH_SIZE", "64")
    how = load("--config", yaml, "--training.epochs", "6").training
    assert (how.epochs, how.batch_size, how.seed, how.patience) == (6, 64, 5, config.Training().patience)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.epoch", "3"], r"unknown option --training.epoch; did you mean --training.epochs\?"),
        (["--trainin"], "unknown option --trainin"),
        (["stray"], "unexpected argument 'stray'"),
        (["--training.macro_classes", "N"], "unknown option --training.macro_classes; it is --data.scored_classes now"),
        (["--training.epochs", "many"], "training.epochs = 'many'.*integer"),
        (["--training.epochs", "0"], "training.epochs.*greater than or equal to 1"),
        (["--recipe.window.samples", "5", "--recipe.window.length_s", "2"], "either length_s or samples"),
        (["--recipe.context", '["rr_previous_s"]'], "only beat rows"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file; configs/ has .*mitdb"),
        (["--dataset", "mitbd"], "mitbd.yaml: no such file"),
        (["--config", "a.yaml", "--dataset", "mitdb"], "not both"),
    ],
)
def test_a_wrong_word_stops_and_says_what_is_possible(words, message):
    with pytest.raises(Stop, match=message):
        load(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epoch: 3}", r"s.yaml: unknown setting training.epoch; did you mean training.epochs\?"),
        ("trainings: {}", "s.yaml: unknown setting trainings"),
        ("training: {macro_classes: [N]}", "unknown setting training.macro_classes; it is data.scored_classes now"),
        ("training: {epochs: x}", "s.yaml: training.epochs = 'x'"),
        ("run: runs/x", "s.yaml: unknown setting run; it is run_dir now"),
        ("training: {learning_rate: .inf}", "s.yaml: training.learning_rate = inf: Input should be a finite number"),
        ("recipe: {gaps: {max_s: .inf}}", "s.yaml: recipe.gaps.max_s = inf: Input should be a finite number"),
        ("training: {weight_decay: .nan}", "s.yaml: training.weight_decay = nan"),
        ("training: [1", "s.yaml: not YAML"),
        ("data: {limit: 3}\ntraining: {seed: 1}\ndata: {name: svdb}", "s.yaml: data stands there twice"),
        ("training: {seed: 1, augmentation: {gain: 0.1, gain: 0.2}}", "training.augmentation.gain stands there twice"),
        ("data: {arguments: {of: [{a: 1, a: 2}]}}", "s.yaml: data.arguments.of.a stands there twice"),
        ("- 1", "s.yaml: expected sections"),
    ],
)
def test_a_wrong_yaml_stops_and_names_file_and_key(tmp_path, text, message):
    with pytest.raises(Stop, match=message):
        load("--config", write(tmp_path / "s.yaml", text))


def test_a_wrong_value_is_blamed_on_where_it_stands(tmp_path, monkeypatch):
    path = write(tmp_path / "s.yaml", "training: {epochs: 5, seed: x}")
    with pytest.raises(Stop, match=r"^\S+s.yaml: training.seed = 'x'"):
        load("--config", path, "--training.epochs", "6")
    path = write(tmp_path / "s.yaml", "training: {epochs: 5}")
    with pytest.raises(Stop, match="^command line: training.epochs = 'many'"):
        load("--config", path, "--training.epochs", "many")
    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "0")
    with pytest.raises(Stop, match="^environment: training.epochs"):
        load("--config", path)


def test_a_run_folder_can_be_named_where_torchrun_reads_the_line_too():
    assert load("--run_dir", "runs/x").run_folder == load("--run", "runs/x").run_folder == Path("runs/x")


def test_an_environment_variable_that_names_no_setting_stops(monkeypatch):
    monkeypatch.setenv("ECG_TRAINING__EPOCH", "3")
    with pytest.raises(Stop, match=r"ECG_TRAINING__EPOCH.*did you mean training.epochs\?"):
        load()


def test_an_environment_variable_without_a_section_is_none_of_ours(monkeypatch):
    monkeypatch.setenv("ECG_TEST_DATA", "/somewhere")
    assert load() == config.Settings()


def test_null_switches_an_optional_section_off():
    assert load("--recipe.bandpass", "null").recipe.bandpass is None


def test_lists_are_read_from_the_command_line_in_either_form():
    assert load("--data.train", "1,DS2").data.train == ("1", "DS2")
    assert load("--data.train", '["1", "DS2"]').data.train == ("1", "DS2")
    assert load("--recipe.leads", '[["MLII","II"],["V1"]]').recipe.leads == (("MLII", "II"), ("V1",))


def test_lists_are_read_from_the_environment_in_either_form(monkeypatch):
    for text, folds in (("1,DS2", ("1", "DS2")), ('["1", "DS2"]', ("1", "DS2")), ("7", ("7",))):
        monkeypatch.setenv("ECG_DATA__TRAIN", text)
        assert load().data.train == load("--data.train", text).data.train == folds
    monkeypatch.setenv("ECG_RECIPE__BANDPASS", "null")
    assert load().recipe.bandpass is None
    monkeypatch.setenv("ECG_MODEL__ARGUMENTS", "{width")
    with pytest.raises(Stop, match=r"environment: model.arguments = .*\{width.* valid dictionary"):
        load()


def test_short_flags_set_what_their_table_says():
    settings = load("--workers", "3", "--dtype", "float32")
    assert (settings.data.workers, settings.recipe.dtype) == (3, "float32")


def test_dataset_is_short_for_its_yaml():
    assert load("--dataset", "mitdb") == load("--config", str(REPOSITORY / "configs/mitdb.yaml"))


def test_help_lists_every_setting_with_its_meaning(capsys):
    with pytest.raises(SystemExit):
        load("--help")
    text = " ".join(capsys.readouterr().out.split())
    for key in flatten(config.Settings().tree()):
        if not key.startswith("recipe.version"):
            assert f"--{key}" in text, key
    assert "lower edge, Hz" in text


def test_differences_from_the_defaults_are_printed(capsys):
    config.print_overrides(load("--training.epochs", "3"))
    assert "training.epochs: 25 -> 3" in capsys.readouterr().err


def test_a_recipe_survives_json():
    recipe = load("--dataset", "mitdb").recipe
    assert Recipe(**recipe.tree()) == recipe


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_yaml_is_valid(path):
    assert load("--config", str(path)).data.name


@pytest.mark.parametrize(
    ("name", "valid", "expected"),
    [
        ("training.epoch", ["training.epochs", "training.seed"], "; did you mean training.epochs?"),
        ("mitbd", ["mitdb", "svdb"], "; did you mean mitdb?"),
        ("ResNet1D", ["cnn1d", "resnet1d"], "; did you mean resnet1d?"),
        ("zzzz", ["cnn1d", "resnet1d", "beatcnn"], ""),
        ("training.zzzz", ["training.amp", "training.epochs"], ""),  # alike by their section alone
        ("trainings", ["training", "data"], "; did you mean training?"),
    ],
)
def test_the_nearest_name_is_offered_where_one_is_near(name, valid, expected):
    assert nearest(name, valid) == expected


def test_what_belongs_to_the_machine_is_no_part_of_the_work():
    here = config.of_the_work(load("--dataset", "mitdb"))
    words = ["--training.workers", "3", "--training.threads", "2", "--data.workers", "5", "--data.raw", "/elsewhere"]
    assert config.of_the_work(load("--dataset", "mitdb", *words, "--run", "runs/x")) == here
    other = config.of_the_work(load("--dataset", "mitdb", "--recipe.window.samples", "100"))
    assert differences(here, other) == ["recipe.window.samples: 187 -> 100"]

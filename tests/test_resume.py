"""Trainings that are stopped, killed and started again, and what refuses to go on."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from test_train import ALL_ON, metrics_of, steps

import bundle
import train
import validation
from script import Stop

BEATS = [*ALL_ON, "--training.batch_size", "16", "--training.accumulation", "2", "--training.epochs", "3"]
BEATS += ["--training.threads", "1"]
PIECES = [
    "--training.batch_size", "8", "--training.epochs", "3", "--training.crops.length_s", "2.5",
    "--training.mixup", "0.4", "--training.ema_decay", "0.9", "--training.schedule", "one_cycle",
    "--training.augmentation.noise", "0.05", "--training.workers", "2", "--training.threads", "1",
]  # fmt: skip


def raise_signal_at(monkeypatch, number, at):
    """Let the signal come in the step of this number, counted from 0 over all epochs."""
    set_rate = train.set_rate

    def signalled(state, step, *others):
        if step == at:
            signal.raise_signal(number)
        return set_rate(state, step, *others)

    monkeypatch.setattr(train, "set_rate", signalled)


def same_run(one, other):
    assert metrics_of(one) == metrics_of(other)
    assert steps(one) == steps(other)
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(run / name, weights_only=True)["weights"] for run in (one, other))
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module", params=["beats", "pieces"])
def whole(request, prepared_beats, prepared_demo, tmp_path_factory):
    """The settings of a training, and its run when nothing stops it."""
    words = [*prepared_beats, *BEATS] if request.param == "beats" else [*prepared_demo, *PIECES]
    folder = tmp_path_factory.mktemp("whole")
    train.main([*words, "--run_dir", str(folder)])
    return words, folder


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 0), (signal.SIGINT, 4), (signal.SIGTERM, 10)])
def test_a_training_that_is_asked_to_stop_goes_on_in_the_same_bits(whole, tmp_path, monkeypatch, capsys, number, at):
    words, uncut = whole
    raise_signal_at(monkeypatch, number, at)
    with pytest.raises(SystemExit) as left:
        train.main([*words, "--run_dir", str(tmp_path / "cut")])
    monkeypatch.undo()
    assert left.value.code == 128 + number
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"go on with: python train.py --resume {tmp_path / 'cut'}")
    train.main(["--resume", str(tmp_path / "cut")])
    same_run(uncut, tmp_path / "cut")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was


def test_a_run_that_is_not_there_cannot_be_resumed_by_its_name(tmp_path):
    with pytest.raises(Stop, match=f"{tmp_path}/none: no run there"):
        train.main(["--resume", str(tmp_path / "none")])


@pytest.mark.slow
def test_a_training_that_is_killed_ten_times_ends_in_the_same_bits(prepared_beats, tmp_path):
    words = [*prepared_beats, *BEATS, "--training.epochs", "10"]
    train.main([*words, "--run_dir", str(tmp_path / "whole")])
    command = [sys.executable, "tests/train_killed.py", "10", str(tmp_path / "cut"), *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split()[-2])
    assert kills == 10
    same_run(tmp_path / "whole", tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("*.tmp"))


@pytest.mark.slow
def test_torchrun_starts_a_training_again_where_a_process_died(prepared_beats, tmp_path):
    words = [*prepared_beats, *BEATS]
    (tmp_path / "dies.py").write_text(
        f"""import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
import train
end_epoch = train.end_epoch
def dying(state, *others):
    if state.epoch == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    return end_epoch(state, *others)
train.end_epoch = dying
train.main(sys.argv[1:])
"""
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, script_, more in (("whole", "train.py", []), ("cut", tmp_path / "dies.py", ["--max_restarts", "1"])):
        command = [*torchrun, *more, str(script_), *words, "--run_dir", str(tmp_path / name)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_two_processes_stop_after_the_same_step_when_one_is_asked_to(prepared_beats, tmp_path):
    words = [*prepared_beats, *BEATS, "--run_dir", str(tmp_path / "cut")]
    (tmp_path / "asked.py").write_text(
        f"""import os, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
import script, train
set_rate = train.set_rate
def signalled(state, step, *others):
    if step == 5 and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGTERM)
    return set_rate(state, step, *others)
train.set_rate = signalled
try:
    train.main(sys.argv[1:])
except SystemExit as left:
    print("left with", left.code)
"""
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "asked.py"), *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left with 143") == 2 and "stopped after epoch 1, step 6 of" in done.stdout
    train.main(["--resume", str(tmp_path / "cut")])
    assert len(metrics_of(tmp_path / "cut")) == 3


# ------------------------------------------------------------------------------------------------------------ guards


def test_a_loss_that_is_not_finite_stops_and_names_the_records(prepared_demo, tmp_path, monkeypatch):
    row_losses, calls = train.row_losses, []

    def broken(*arguments):
        calls.append(1)
        return row_losses(*arguments) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(train, "row_losses", broken)
    words = [*prepared_demo, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "4", "--training.seed", "3"]
    with pytest.raises(Stop, match=r"step 3 of the epoch: loss or gradient is not finite; its rows are of \S+,"):
        train.main(words)


def test_a_gradient_that_is_not_finite_stops_though_the_loss_is(prepared_demo, tmp_path, monkeypatch):
    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    row_losses = train.row_losses
    monkeypatch.setattr(train, "row_losses", lambda *arguments: Spoilt.apply(row_losses(*arguments)))
    words = [*prepared_demo, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "4"]
    with pytest.raises(Stop, match=r"step 1 of the epoch: loss or gradient is not finite"):
        train.main(words)


OUT_OF_MEMORY = (torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_names_the_batch_size_and_accumulation(prepared_demo, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(train, "row_losses", full)
    words = [*prepared_demo, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "8"]
    with pytest.raises(Stop, match=r"training.batch_size = 8: out of memory; a larger training.accumulation \(1 now\)"):
        train.main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.amp", "float16"], "training.amp = float16: a CPU has no"),
        (["--training.batch_size", "9", "--training.accumulation", "2"], "must be a multiple of 1 processes x 2"),
    ],
)
def test_settings_that_contradict_each_other_stop_before_any_data_is_read(tmp_path, words, message):
    with pytest.raises(Stop, match=message):
        train.main(["--data.name", "mitdb", "--data.dir", str(tmp_path / "none"), *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.loss", "asymmetric"], "training.loss = asymmetric: .* has one class for each row"),
        (["--training.mixup", "0.2"], "training.mixup = 0.2: the numbers of recipe.context cannot be mixed"),
        (["--training.crops.length_s", "0.2"], "training.crops.length_s = 0.2: rows are beats"),
    ],
)
def test_settings_that_do_not_fit_the_dataset_stop(prepared_beats, tmp_path, words, message):
    with pytest.raises(Stop, match=message):
        train.main([*prepared_beats, "--training.batch_size", "16", "--run_dir", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_network_or_other_classes_is_refused_with_the_difference(demo_run):
    trained = bundle.load(demo_run / "best.pt")
    state = train.new_state(trained.network, trained.name, train.Training(), None)
    message = r"last.pt: is of another network or other classes \(classes: 1dAVb.*-> N; model: cnn1d -> s4\)"
    with pytest.raises(Stop, match=message):
        state.restore(demo_run / "last.pt", train.replace(trained, name="s4", classes=("N",)))


def test_the_rate_of_a_plateau_falls_where_the_score_stands_still(prepared_demo, tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.4, 0.4, 0.4, 0.6, 0.2, 0.2])
    monkeypatch.setattr(validation, "validate", lambda *_: validation.Validation(1.0, 0.5, next(scores), None))
    words = [
        *prepared_demo,
        "--run_dir",
        str(tmp_path / "run"),
        "--training.batch_size",
        "16",
        "--training.warmup",
        "0",
    ]
    words += ["--training.schedule", "plateau", "--training.plateau_patience", "2", "--training.epochs", "8"]
    train.main([*words, "--training.learning_rate", "0.001"])
    rates = [float(row["learning_rate"]) for row in metrics_of(tmp_path / "run")]
    np.testing.assert_allclose(rates, [1e-3] * 4 + [1e-4] * 4)
    # lowered after epoch 4, two after the best; the next best comes in epoch 6, and epoch 8 would lower it again


@pytest.mark.parametrize("loss", ["focal", "asymmetric"])
def test_a_network_learns_pieces_with_all_that_there_is(prepared_demo, tmp_path, loss):
    words = [*prepared_demo, *PIECES, "--training.loss", loss, "--training.label_smoothing", "0.05"]
    words += ["--training.crops.pool", "max", "--training.deterministic", "true", "--training.accumulation", "2"]
    train.main([*words, "--run_dir", str(tmp_path / "run")])
    losses = steps(tmp_path / "run")
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert bundle.load(tmp_path / "run/best.pt").crops == (250, 250, "max")


@pytest.mark.slow
def test_a_compiled_training_has_the_losses_of_one_that_is_not(prepared_demo, tmp_path):
    words = [*prepared_demo, "--training.batch_size", "16", "--training.epochs", "1", "--training.threads", "1"]
    words += ["--model.arguments", '{"dropout": 0.0}']
    train.main([*words, "--run_dir", str(tmp_path / "plain")])
    train.main([*words, "--run_dir", str(tmp_path / "compiled"), "--training.compile", "true"])
    np.testing.assert_allclose(steps(tmp_path / "compiled"), steps(tmp_path / "plain"), rtol=1e-3)
    bundle.load(tmp_path / "compiled/best.pt")  # of the plain network's names

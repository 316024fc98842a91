import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from narrow import NARROW

import bundle
import export
import infer
import models
import quantise
import runs
from bundle import Bundle, Origin
from crops import Crops
from recipe import Recipe, Window
from script import Stop

onnx = pytest.importorskip("onnx", reason="needs the extra export")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")

NAMES = sorted(models.NETWORKS)
TOLERANCE = 1e-4  # what export.py promises of logits of order 1
BEATS = REPOSITORY / "pretrained" / "beats.pt"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript.*", "ignore::DeprecationWarning:onnx.*")


def made(name, n_samples=80, **more):
    """A network of two leads and three classes, in a narrow form, whose batch norm has seen some rows."""
    torch.manual_seed(0)
    arguments = NARROW.get(name, {})
    network = models.build(name, 2, 3, **arguments)
    with torch.no_grad():
        for _ in range(3):
            network(*rows_for(network, 16, n_samples))
    recipe = Recipe(leads=[["MLII"], ["V1"]], window=Window(samples=n_samples))
    of = {"task": "multilabel", "thresholds": (0.5, 0.25, 0.125), "origin": Origin("abc", None), **more}
    return Bundle(network.eval(), name, arguments, recipe, ("A", "B", "C"), **of)


def rows_for(network, n_rows, n_samples):
    """Rows as a network takes them; of the first no number is known, of the last half is padding at both ends."""
    draw = np.random.default_rng(n_rows * n_samples)
    context = draw.uniform(0.3, 2.0, (n_rows, len(getattr(network, "context_features", ()))))
    context[0] = np.nan
    valid = np.tile([0, n_samples], (n_rows, 1))
    valid[-1] = n_samples // 4, 3 * n_samples // 4
    inputs = {"context": torch.tensor(context, dtype=torch.float32), "valid": torch.tensor(valid)}
    signal = torch.tensor(draw.normal(0.2, 1.5, (n_rows, 2, n_samples)), dtype=torch.float32)
    return signal, *(inputs[name] for name in models.extra_inputs(network))


def metadata_of(path):
    properties = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in properties.items()}


@pytest.fixture(scope="session")
def beats_onnx(tmp_path_factory):
    """The bundled network of beats as ONNX."""
    path = tmp_path_factory.mktemp("export") / "beats.onnx"
    export.main([str(BEATS), "--out", str(path)])
    return path


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_gives_the_logits_of_pytorch_for_any_batch_and_length(name, tmp_path):
    trained = made(name)
    written = export.export(trained, tmp_path / "m.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert names == ["signal", *models.extra_inputs(trained.network)]
    lengths = {80, 77, written.shortest} if written.longest else {80, 77, written.shortest, 131}
    for n_samples in lengths:
        for n_rows in (1, 2, 5):
            inputs = rows_for(trained.network, n_rows, n_samples)
            with torch.no_grad():
                expected = trained.network(*inputs).numpy()
            feed = {key: tensor.numpy() for key, tensor in zip(names, inputs)}
            np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_torch_export_loads_gives_the_logits_of_pytorch(name, tmp_path):
    trained = made(name, 40 if "lstm" in name else 80)  # each step of an LSTM takes a fifth of a second to lay out
    written = export.export(trained, tmp_path / "m.pt2", "torch")
    module = torch.export.load(tmp_path / "m.pt2").module()
    lengths = {written.shortest, 40} if "lstm" in name else {80, 77, written.shortest}
    for n_samples in lengths:
        for n_rows in (1, 2, 5):
            inputs = rows_for(trained.network, n_rows, n_samples)
            with torch.no_grad():
                np.testing.assert_allclose(module(*inputs), trained.network(*inputs), rtol=TOLERANCE, atol=TOLERANCE)


def test_of_two_networks_the_length_is_limited_and_the_reason_said(tmp_path):
    s4 = export.export(made("s4"), tmp_path / "s4.onnx", "onnx")
    assert s4.longest == 80 and "convolutions are made for rows of that length" in s4.why
    lstm = export.export(made("lstm", 20), tmp_path / "lstm.pt2", "torch")
    assert (lstm.shortest, lstm.longest) == (20, 20) and "step by step" in lstm.why
    assert json.loads(_extra(tmp_path / "lstm.pt2"))["samples"] == {"row": 20, "shortest": 20, "longest": 20}


def _extra(path):
    extra = {export.METADATA: ""}
    torch.export.load(path, extra_files=extra)
    return extra[export.METADATA]


def test_the_comparison_covers_three_batches_and_two_lengths(tmp_path):
    differences = export.export(made("cnn1d"), tmp_path / "m.onnx", "onnx").differences
    assert {n_rows for n_rows, _ in differences} == {1, 3, 64}
    assert len({n_samples for _, n_samples in differences}) == 2 and len(differences) == 6


# ---------------------------------------------------------------------------------------------------------- the file


def test_the_metadata_hold_all_that_a_prediction_needs(tmp_path):
    trained = made("cnn1d", temperature=1.7, crops=Crops(70, 5, "mean"))
    export.export(trained, tmp_path / "m.onnx", "onnx")
    export.export(trained, tmp_path / "m.pt2", "torch")
    said = metadata_of(tmp_path / "m.onnx")
    assert said == json.loads(_extra(tmp_path / "m.pt2"))
    assert Recipe(**said["recipe"]) == trained.recipe
    assert said["classes"] == ["A", "B", "C"] and said["task"] == "multilabel"
    assert said["temperature"] == 1.7 and said["thresholds"] == [0.5, 0.25, 0.125]
    assert said["crops"] == {"samples": 70, "stride": 5, "pool": "mean"} and said["samples"]["row"] == 70
    assert said["network"] == {"name": "cnn1d", "arguments": {}} and said["origin"]["commit"] == "abc"
    assert said["inputs"] == ["signal", "valid"] and said["context"] == []
    assert "medical device" in said["notice"]


def test_the_axes_have_names_and_nothing_tells_of_this_machine(beats_onnx):
    session = onnxruntime.InferenceSession(beats_onnx)
    assert [value.shape for value in session.get_inputs()] == [["batch", 2, "time"], ["batch", 108]]
    assert session.get_outputs()[0].shape == ["batch", 5]
    assert str(REPOSITORY).encode() not in beats_onnx.read_bytes()
    assert not onnx.load(beats_onnx, load_external_data=False).graph.node[0].metadata_props


def test_logits_that_differ_are_refused_and_nothing_is_left(tmp_path, monkeypatch):
    def wrong(path):
        logits_of = export.opened_torch(path)
        return lambda inputs: logits_of(inputs) + 0.01

    monkeypatch.setitem(export.OPENERS, "torch", wrong)
    with pytest.raises(Stop, match=r"m.pt2: not written, its logits are not those of PyTorch: 1 x 53 samples 1.0e-02"):
        export.export(made("beatview"), tmp_path / "m.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_logits_that_are_not_a_number_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(export.OPENERS, "torch", lambda path: lambda inputs: torch.full((1, 3), torch.nan))
    with pytest.raises(Stop, match="samples inf"):
        export.export(made("beatview"), tmp_path / "m.pt2", "torch")


# ------------------------------------------------------------------------------------------------------- the example

WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def told(model, record):
    """What examples/onnx_predict.py prints in a Python that has no torch: times, names of classes, scores."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "examples/onnx_predict.py", str(model), str(record)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert "Not a medical device" in last
    cells = [line.split() for line in lines]
    return [float(row[0]) for row in cells], [row[2] for row in cells], np.array([row[3:] for row in cells], float)


def test_the_example_gives_the_beats_of_infer_without_torch(beats_onnx):
    record = REPOSITORY / "examples" / "holter.hea"
    times, names, scores = told(beats_onnx, record)
    prediction = infer.predict(record, BEATS)
    np.testing.assert_allclose(times, prediction.samples / prediction.fs, atol=5e-4)
    assert names == [prediction.classes[k] for k in prediction.beat_classes]
    np.testing.assert_allclose(scores, prediction.scores, atol=2e-5)  # five places are printed


def test_the_example_gives_the_findings_of_infer_without_torch(demo_run, demo_folder, tmp_path):
    export.main([str(demo_run), "--out", str(tmp_path / "demo.onnx")])
    record = sorted(demo_folder.rglob("*.hea"))[0]
    _, names, scores = told(tmp_path / "demo.onnx", record)
    prediction = infer.predict(record, demo_run)
    np.testing.assert_allclose(scores, prediction.scores, atol=2e-5)
    assert names == ["+".join(np.array(prediction.classes)[prediction.decided[0] == 1]) or "none"]


# ------------------------------------------------------------------------------------------------------------- int8


def test_int8_says_what_it_costs_and_keeps_the_metadata(demo_run, tmp_path, capsys):
    path = tmp_path / "demo.int8.onnx"
    export.main([str(demo_run), "--int8", "--out", str(path)])
    printed = capsys.readouterr().out
    before, after = (printed.split(f"\n{name} ")[1].split()[:3] for name in ("float32", "int8"))
    assert float(after[2]) < 0.6 * float(before[2])  # MB
    assert 0 <= float(after[0]) <= 1 and f"wrote {path}" in printed
    assert metadata_of(path)["precision"] == "int8"
    trained = bundle.load(runs.checkpoint_of(demo_run))
    inputs = export.inputs_for(trained.network, 12, 8, 1000)
    with torch.no_grad():
        expected = trained.network(*inputs.values())
    found = export.opened_onnx(path)(inputs)
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_float_file_scores_as_evaluate_does(demo_run, tmp_path):
    import config
    import evaluate

    settings = config.validated({"run": config.read_yaml(demo_run / runs.CONFIG)})
    trained, dataset, rows = evaluate.open_run(demo_run, settings)
    export.export(trained, tmp_path / "m.onnx", "onnx")
    scored = quantise.score_file(tmp_path / "m.onnx", trained, dataset, rows)
    assert scored.macro_f1 == pytest.approx(evaluate.evaluate_run(demo_run, settings).macro_f1)


def test_an_lstm_becomes_int8_without_rows(tmp_path):
    export.export(made("lstm"), tmp_path / "m.onnx", "onnx")
    assert quantise.quantise(tmp_path / "m.onnx", tmp_path / "q.onnx", [], {}) == "ranges found anew for each batch"
    assert (tmp_path / "q.onnx").stat().st_size < (tmp_path / "m.onnx").stat().st_size
    inputs = export.inputs_for(made("lstm").network, 2, 4, 80)
    plain, narrow = (export.opened_onnx(tmp_path / name)(inputs) for name in ("m.onnx", "q.onnx"))
    assert (plain - narrow).abs().max() < 0.2 * plain.abs().max()


def test_int8_that_is_worse_slower_or_larger_is_said():
    before = quantise.Scored(0.80, 1000.0, 100)
    assert quantise.drawbacks(before, quantise.Scored(0.795, 1200.0, 40)) == []
    worse = quantise.drawbacks(before, quantise.Scored(0.70, 500.0, 120))
    assert worse == ["macro-F1 falls by 0.1000", "it takes 2.0 times as long", "the file is larger"]


def test_int8_without_the_prepared_dataset_is_refused_before_work(tmp_path):
    with pytest.raises(Stop, match=r"absent.*(no|not)"):
        export.main([str(BEATS), "--int8", "--out", str(tmp_path / "m.onnx"), "--data.dir", str(tmp_path / "absent")])
    assert not list(tmp_path.iterdir())


def test_int8_with_the_dataset_of_another_recipe_is_refused(prepared_demo, tmp_path):
    folder = prepared_demo[prepared_demo.index("--data.dir") + 1]
    with pytest.raises(Stop, match="--int8: .* was prepared with another recipe"):
        export.main([str(BEATS), "--int8", "--out", str(tmp_path / "m.onnx"), "--data.dir", folder])


# ----------------------------------------------------------------------------------------------------------- refused


def test_no_such_run_is_refused(tmp_path):
    with pytest.raises(Stop, match=r"none/best.pt: no such checkpoint"):
        export.main([str(tmp_path / "none"), "--out", str(tmp_path / "m.onnx")])


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"no checkpoint")
    with pytest.raises(Stop, match="m.pt: not a checkpoint"):
        export.main([str(tmp_path / "m.pt")])


def test_a_missing_package_is_named_with_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a))
    with pytest.raises(Stop, match=r'needs onnx, which is not installed: pip install -e "\.\[export\]"'):
        export.main([str(BEATS), "--out", str(tmp_path / "m.onnx")])
    export.main([str(BEATS), "--format", "torch", "--out", str(tmp_path / "m.pt2")])  # does without


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "m.pt2"
    path.write_text("mine")
    words = [str(BEATS), "--format", "torch", "--out", str(path)]
    with pytest.raises(Stop, match=r"m.pt2: already exists; replace it with --overwrite"):
        export.main(words)
    assert path.read_text() == "mine"
    export.main([*words, "--overwrite"])
    assert path.stat().st_size > 10_000


def test_a_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Stop, match="there is no folder"):
        export.main([str(BEATS), "--out", str(tmp_path / "none" / "m.onnx")])
    monkeypatch.setattr(export.os, "access", lambda *_: False)  # whoever runs the tests may be allowed everything
    with pytest.raises(Stop, match="cannot be written to; give --out FILE"):
        export.main([str(BEATS), "--out", str(tmp_path / "m.onnx")])


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export.WRITERS, "torch", full)
    with pytest.raises(Stop, match="m.pt2: cannot be written: No space left on device"):
        export.main([str(BEATS), "--format", "torch", "--out", str(tmp_path / "m.pt2")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("file_format", "name"), [("onnx", "m.pt2"), ("torch", "m.onnx"), ("torch", "m")])
def test_a_suffix_of_another_format_is_refused(file_format, name, tmp_path):
    with pytest.raises(Stop, match=rf"a file of --format {file_format} ends in \{export.SUFFIXES[file_format]}"):
        export.main([str(BEATS), "--format", file_format, "--out", str(tmp_path / name)])


def test_an_unknown_format_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        export.main([str(BEATS), "--format", "tflite"])
    assert stopped.value.code == 2 and "choose from" in capsys.readouterr().err


def test_int8_is_of_onnx_alone(tmp_path):
    with pytest.raises(Stop, match="--int8: is of --format onnx, not of torch"):
        export.main([str(BEATS), "--format", "torch", "--int8", "--out", str(tmp_path / "m.pt2")])


def test_the_file_stands_beside_the_checkpoint_where_no_other_is_named(demo_run, tmp_path):
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(Path(runs.checkpoint_of(demo_run)).read_bytes())
    export.main([str(tmp_path), "--format", "torch"])
    assert (tmp_path / "best.pt2").is_file()

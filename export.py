"""Run -> one file that predicts without these scripts: ONNX, or torch.export.

    python export.py runs/mitdb                              # runs/mitdb/best.onnx
    python export.py runs/mitdb --format torch               # runs/mitdb/best.pt2, for torch.export.load
    python export.py runs/mitdb --int8                       # runs/mitdb/best.int8.onnx, and what it costs
    python export.py pretrained/beats.pt --out beats.onnx

Inputs are what the network takes: `signal` (B, L, T) float32 as `pqrst.prepare` gives it, and where the network wants
them `context` (B, F) float32, NaN where unknown, and `valid` (B, 2) int64. The output `logits` (B, K) is raw: a score
is the softmax (multiclass) or sigmoid of logits / temperature. Temperature, thresholds, classes, recipe and all else
that a prediction needs are in the metadata, each value as JSON; `examples/onnx_predict.py` shows their use. A file is
written only where its logits are those of PyTorch. Not a medical device: for research and teaching only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

import bundle
import config
import models
import pqrst
import runs
import script
from bundle import Bundle
from config import Settings
from data import Dataset
from networks.recurrent import CNNLSTM, LSTM, with_onnx_operator
from networks.state_space import S4, as_convolutions
from script import Stop

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
METADATA = "metadata.json"  # of extra_files in what torch.export writes
NOTICE = "Not a medical device: for research and teaching only."
TOLERANCE = 1e-4  # of logits, relative to the largest where that is above 1: another library sums in another order
BATCHES = (1, 3, 64)  # of the comparison


class Exported(NamedTuple):
    """What was written."""

    path: Path
    n_bytes: int
    shortest: int  # samples of a row that the file takes
    longest: int | None  # None: no limit
    why: str  # it takes no others; "" where it takes what the network takes
    differences: dict[tuple[int, int], float]  # (rows, samples) -> largest difference of logits from PyTorch's


# ------------------------------------------------------------------------------------------------ what is exported


def plain_network(trained: Bundle, file_format: str) -> tuple[nn.Module, int | None, str]:
    """Return the network in a form that files can hold, the longest row that it takes, and why no longer."""
    network, n_samples = trained.network, row_samples(trained)
    if isinstance(network, S4):
        return as_convolutions(network, n_samples), n_samples, "its convolutions are made for rows of that length"
    if isinstance(network, LSTM | CNNLSTM) and file_format == "onnx":
        return with_onnx_operator(network), None, ""
    return network, None, ""


def row_samples(trained: Bundle) -> int:
    """Return the length of what the network is asked about: a row, or a piece of one."""
    whole = pqrst.row_samples(trained.recipe.chain())
    return whole if trained.crops is None else min(whole, trained.crops.samples)


def inputs_for(network: nn.Module, n_leads: int, n_rows: int, n_samples: int) -> dict[str, Tensor]:
    """Make rows to trace and compare with: noise, numbers of which some are unknown, valid ranges of any place."""
    draw = torch.Generator().manual_seed(n_rows + 1000 * n_samples)
    first = torch.randint(0, n_samples // 4 + 1, (n_rows,), generator=draw)
    last = torch.randint(n_samples // 2 + 1, n_samples + 1, (n_rows,), generator=draw)
    context = torch.rand(n_rows, len(getattr(network, "context_features", ())), generator=draw) + 0.5
    context[::2, ::3] = torch.nan
    others = {"context": context, "valid": torch.stack([first, last], dim=1)}
    signal = torch.randn(n_rows, n_leads, n_samples, generator=draw)
    return {"signal": signal} | {name: others[name] for name in models.extra_inputs(network)}


def trace(network: nn.Module, n_leads: int, n_samples: int, longest: int | None) -> tuple[ExportedProgram, int, str]:
    """Return the program of a network for any number of rows, the shortest row that it takes, and why no others.

    Rows may have any length where the network allows it; otherwise n_samples.
    """
    inputs = inputs_for(network, n_leads, 3, n_samples)
    by_step = any(isinstance(module, nn.LSTM) for module in network.modules())
    batch = torch.export.Dim("batch", min=1)
    time = torch.export.Dim.DYNAMIC(min=max(2, int(network.min_samples)), max=longest)  # type: ignore[arg-type]
    of_signal = {0: batch} if by_step else {0: batch, 2: time}
    shapes = (of_signal, *({0: batch} for _ in tuple(inputs)[1:]))
    with torch.no_grad(), _quiet():
        program = torch.export.export(network, tuple(inputs.values()), dynamic_shapes=shapes)
    if by_step:
        return program, n_samples, "torch.export lays out an LSTM step by step, for rows of that length"
    signal = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    return program, int(program.range_constraints[signal.meta["val"].shape[2].node.expr].lower), ""


def metadata(trained: Bundle, shortest: int, longest: int | None) -> dict[str, Any]:
    """Return all that a prediction needs beside the network, as JSON holds it."""
    return {
        "notice": NOTICE,
        "network": {"name": trained.name, "arguments": trained.arguments},
        "inputs": ["signal", *models.extra_inputs(trained.network)],
        "classes": list(trained.classes),
        "task": trained.task,
        "temperature": trained.temperature,
        "thresholds": None if trained.thresholds is None else list(trained.thresholds),
        "crops": None if trained.crops is None else trained.crops._asdict(),
        "recipe": trained.recipe.tree(),
        "context": list(trained.recipe.context_columns),
        "samples": {"row": row_samples(trained), "shortest": shortest, "longest": longest},
        "origin": vars(trained.origin),
    }


# ------------------------------------------------------------------------------------------------ the two formats


def write_torch(program: ExportedProgram, tree: Mapping[str, Any], path: Path) -> None:
    torch.export.save(program, path, extra_files={METADATA: json.dumps(tree)})


def write_onnx(program: ExportedProgram, tree: Mapping[str, Any], path: Path) -> None:
    """Write a program as ONNX, its axes called batch and time, without what it says of this machine's files."""
    import onnx

    names = list(tree["inputs"])
    with _quiet():
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, input_names=names, output_names=["logits"]
        )
    assert written is not None
    model = written.model_proto
    axes = {dim.dim_param: name for dim, name in zip(_axes(model.graph.input[0]), ("batch", "", "time"), strict=True)}
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for dim in (dim for value in values for dim in _axes(value) if dim.dim_param):
        dim.dim_param = re.sub(r"\bs\d+\b", lambda match: axes.get(match[0], match[0]), dim.dim_param)
    for part in (*model.graph.node, *values, *model.graph.initializer, model.graph):
        del part.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name = "pqrst"
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in tree.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _axes(value: Any) -> Sequence[Any]:
    axes: Sequence[Any] = value.type.tensor_type.shape.dim
    return axes


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal which packages the exporter would also know, and that it calls what will change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tensor attributes self.lstm._flat_weights", UserWarning)
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


WRITERS = {"onnx": write_onnx, "torch": write_torch}


def opened_onnx(path: Path) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Return what gives the logits (B, K) of inputs by their names, with onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(["logits"], {k: v.numpy() for k, v in inputs.items()})[0])


def opened_torch(path: Path) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Return what gives the logits (B, K) of inputs in their order."""
    module = torch.export.load(path).module()

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(*inputs.values())
        return found

    return logits


OPENERS = {"onnx": opened_onnx, "torch": opened_torch}

# ------------------------------------------------------------------------------------------------ the comparison


def compare(
    network: nn.Module, n_leads: int, lengths: Sequence[int], logits_of: Callable[[Mapping[str, Tensor]], Tensor]
) -> dict[tuple[int, int], float]:
    """Return the largest difference from the logits of PyTorch for each (rows, samples).

    It is relative to the largest logit where that is above 1; NaN and infinity are an infinite difference.
    """
    found = {}
    for n_samples in lengths:
        for n_rows in BATCHES:
            inputs = inputs_for(network, n_leads, n_rows, n_samples)
            with torch.inference_mode():
                expected = network(*inputs.values())
            difference = (logits_of(inputs) - expected).abs().max() / expected.abs().max().clamp(min=1)
            found[n_rows, n_samples] = float(difference.nan_to_num(nan=torch.inf))
    return found


def export(trained: Bundle, path: Path, file_format: str) -> Exported:
    """Write a trained network as one file, whole and only where it computes what PyTorch computes.

    Parameters
    ----------
    trained : as bundle.load gives it; its network moves to the CPU
    path : of the file; one that exists is replaced
    file_format : onnx | torch

    Raises
    ------
    Stop
        The network cannot be exported, computes something else there, or the file cannot be written.
    """
    trained.network.cpu().eval()
    network, longest, why = plain_network(trained, file_format)
    n_leads, n_samples = len(trained.recipe.leads), row_samples(trained)
    program, shortest, one_length = trace(network, n_leads, n_samples, longest)
    if one_length:
        longest, why = n_samples, one_length
    other = max(shortest, 2 * n_samples // 3)
    lengths = sorted({n_samples, other if other != n_samples or longest else n_samples + 1})
    with script.writing(path), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        written = Path(folder) / path.name
        WRITERS[file_format](program, metadata(trained, shortest, longest), written)
        differences = compare(trained.network, n_leads, lengths, OPENERS[file_format](written))
        if max(differences.values()) > TOLERANCE:
            said = "; ".join(said_of(*item) for item in differences.items())
            raise Stop(f"{path}: not written, its logits are not those of PyTorch: {said}")
        n_bytes = written.stat().st_size
        written.replace(path)
    return Exported(path, n_bytes, shortest, longest, why, differences)


def said_of(size: tuple[int, int], difference: float) -> str:
    return f"{size[0]} x {size[1]} samples {difference:.1e}"


# ------------------------------------------------------------------------------------------------ the script


def check_packages() -> None:
    """Stop where a package of the extra is not installed."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise Stop(f'--format onnx: needs {", ".join(absent)}, which is not installed: pip install -e ".[export]"')


def check_output(path: Path, file_format: str, overwrite: bool) -> None:
    """Stop where the file may not or cannot be written."""
    if path.suffix != SUFFIXES[file_format]:
        raise Stop(f"--out {path}: a file of --format {file_format} ends in {SUFFIXES[file_format]}")
    if path.exists() and (not overwrite or not path.is_file()):
        raise Stop(f"{path}: already exists; replace it with --overwrite, or choose another name with --out")
    if not path.parent.is_dir():
        raise Stop(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise Stop(f"{path.parent}: cannot be written to; give --out FILE")


def export_int8(trained: Bundle, path: Path, settings: Settings) -> Exported:
    """Write a trained network as ONNX in 8-bit integers, and print what that costs on rows that it has not learnt from.

    Raises
    ------
    Stop
        As export; or the prepared dataset does not exist, or is of another recipe or other classes.
    """
    import quantise

    dataset = Dataset(*settings.data_dirs)
    if changes := trained.recipe.differences(dataset.recipe):
        raise Stop(f"--int8: {dataset.folder} was prepared with another recipe ({'; '.join(changes)})")
    if trained.classes != dataset.classes:
        raise Stop(f"--int8: {dataset.folder} has other classes: {', '.join(dataset.classes)}")
    split = "test" if settings.data.test else "validation"
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test, needed=["train", split])
    with script.writing(path), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        plain, narrow = Path(folder) / "float.onnx", Path(folder) / path.name
        exported = export(trained, plain, "onnx")
        tree = metadata(trained, exported.shortest, exported.longest) | {"precision": "int8"}
        asked = quantise.inputs_of(plain, trained, dataset, rows["train"])
        how = quantise.quantise(plain, narrow, asked, {key: json.dumps(value) for key, value in tree.items()})
        scored_classes = tuple(settings.data.scored_classes)
        before, after = (
            quantise.score_file(file, trained, dataset, rows[split], scored_classes) for file in (plain, narrow)
        )
        narrow.replace(path)
    print(f"{len(rows[split]):,} {split} rows of {dataset.folder}; int8: {how}")
    print(f"{'':<8} macro-F1  rows/s      MB")
    for name, scored in (("float32", before), ("int8", after)):
        print(f"{name:<8} {scored.macro_f1:8.4f} {scored.rows_per_s:7,.0f} {scored.n_bytes / 1e6:7.3f}")
    if reasons := quantise.drawbacks(before, after):
        print(f"warning: int8 does not suit this network here: {', '.join(reasons)}")
    return exported._replace(path=path, n_bytes=after.n_bytes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run_or_checkpoint", metavar="RUN", help="a run of train.py, or a checkpoint such as beats.pt")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="of the file")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file; beside the checkpoint where none is given")
    parser.add_argument("--int8", action="store_true", help="ONNX in 8-bit integers, scored beside the float file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    settings, arguments = config.load(parser, argv, base=_settings_file)
    checkpoint = runs.checkpoint_of(arguments.run_or_checkpoint)
    if arguments.int8 and arguments.format != "onnx":
        raise Stop(f"--int8: is of --format onnx, not of {arguments.format}")
    suffix = SUFFIXES[arguments.format]
    path = arguments.out or checkpoint.with_suffix(f".int8{suffix}" if arguments.int8 else suffix)
    check_output(path, arguments.format, arguments.overwrite)
    if arguments.format == "onnx":
        check_packages()
    trained = bundle.load(checkpoint)
    exported = export_int8(trained, path, settings) if arguments.int8 else export(trained, path, arguments.format)
    inputs = ", ".join(("signal", *models.extra_inputs(trained.network)))
    print(f"{checkpoint} ({trained.name}): inputs {inputs}, any number of rows")
    limit = f" to {exported.longest:,} samples" if exported.longest else " samples or more"
    print(f"rows of {exported.shortest:,}{limit}" + (f": {exported.why}" if exported.why else ""))
    of = "float32 logits" if arguments.int8 else "logits"
    print(f"largest difference of {of} from PyTorch (relative where a logit is above 1), rows x samples:")
    for item in exported.differences.items():
        print(f"  {said_of(*item)}")
    print(f"wrote {path}: {exported.n_bytes / 1e6:.2f} MB. {NOTICE}")


def _settings_file(arguments: argparse.Namespace) -> Path | None:
    """Return the settings of the run, which say where its dataset is; None of a checkpoint that lies elsewhere."""
    path = runs.checkpoint_of(arguments.run_or_checkpoint).with_name(runs.CONFIG)
    return path if path.exists() else None


if __name__ == "__main__":
    script.run(main)

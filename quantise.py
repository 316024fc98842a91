"""An ONNX file in 8-bit integers, and what that costs: the same rows scored with both files by onnxruntime.

quantise(Path("best.onnx"), Path("best.int8.onnx"), asked)
scored = score_file(Path("best.int8.onnx"), trained, dataset, rows)
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import bundle
import metrics
import models
from batches import Batches, scoring_batches
from bundle import Bundle
from data import Dataset
from folds import Rows

CALIBRATION_ROWS = 512  # whose activations say which range the integers cover
BATCH_SIZE = 64
MOST_LOST = 0.01  # of macro-F1
OPERATORS = ["Conv", "Gemm", "MatMul"]  # those with weights; all else stays in float32

Feed = dict[str, NDArray[Any]]  # inputs of a batch by their names


class OnnxNetwork(nn.Module):
    """A file as bundle.score takes a network; `asked` keeps what it was given where it is a list."""

    def __init__(self, path: Path, network: nn.Module, asked: list[Feed] | None = None) -> None:
        import onnxruntime

        super().__init__()
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.context_features = getattr(network, "context_features", ())
        self.uses_valid = getattr(network, "uses_valid", False)
        self.asked = asked
        self.on_cpu = nn.Parameter(torch.zeros(0))

    def forward(self, *inputs: Tensor) -> Tensor:
        names = ("signal", *models.extra_inputs(self))
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        if self.asked is not None:
            self.asked.append(feed)
        return torch.from_numpy(self.session.run(["logits"], feed)[0])


class Scored(NamedTuple):
    """How well, how fast and in how many bytes a file scores rows."""

    macro_f1: float
    rows_per_s: float
    n_bytes: int


def score_file(
    path: Path, trained: Bundle, dataset: Dataset, rows: Rows, scored_classes: tuple[str, ...] = ()
) -> Scored:
    """Score rows as evaluate.py does, by a file instead of the network."""
    batches = Batches(dataset)
    shares = [batches[share] for share in scoring_batches(rows, BATCH_SIZE)]
    written = replace(trained, network=OnnxNetwork(path, trained.network))
    start = time.perf_counter()
    _, logits = bundle.score(written, shares)
    seconds = time.perf_counter() - start
    first, scores = bundle.pool(logits, dataset.units(rows), dataset.inside(rows), trained.task)
    labels = dataset.labels[rows[first]]
    report = metrics.scores_of(labels, scores, trained.classes, trained.task, trained.thresholds, scored_classes)
    return Scored(report.macro_f1, len(rows) / seconds, path.stat().st_size)


def drawbacks(before: Scored, after: Scored) -> list[str]:
    """Say why a file in integers is not worth its while beside one in float32; nothing where it is."""
    reasons = []
    if (fall := before.macro_f1 - after.macro_f1) > MOST_LOST:
        reasons.append(f"macro-F1 falls by {fall:.4f}")
    if after.rows_per_s < before.rows_per_s:
        reasons.append(f"it takes {before.rows_per_s / after.rows_per_s:.1f} times as long")
    if after.n_bytes > before.n_bytes:
        reasons.append("the file is larger")
    return reasons


def inputs_of(path: Path, trained: Bundle, dataset: Dataset, rows: Rows) -> list[Feed]:
    """Return what the file is asked about some of the rows, evenly chosen."""
    asked: list[Feed] = []
    some = rows[np.unique(np.linspace(0, len(rows) - 1, CALIBRATION_ROWS).astype(np.int64))]
    batches = Batches(dataset)
    recorder = replace(trained, network=OnnxNetwork(path, trained.network, asked))
    bundle.score(recorder, (batches[share] for share in scoring_batches(some, BATCH_SIZE)))
    return asked


def quantise(path: Path, target: Path, asked: list[Feed], tree: Mapping[str, str]) -> str:
    """Write a file with weights and activations in 8-bit integers, and say how their ranges were found.

    Parameters
    ----------
    path : the file in float32
    target : the file to write
    asked : batches whose activations say the ranges. Layers of LSTM find them anew for each batch
    tree : metadata of the file
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime wants one of its own kind
        def __init__(self) -> None:
            self.feeds: Iterator[Feed] = iter(asked)

        def get_next(self) -> Feed | None:
            return next(self.feeds, None)

    recurrent = any(node.op_type == "LSTM" for node in onnx.load(path).graph.node)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises to prepare a file that the exporter has prepared
    try:
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "int8.onnx"
            if recurrent:
                quantize_dynamic(
                    path, inner, weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM", *OPERATORS[1:]]
                )
            else:
                quantize_static(
                    path, inner, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=OPERATORS,
                )  # fmt: skip
            model = onnx.load(inner)
    finally:
        logging.root.setLevel(level)
    onnx.helper.set_model_props(model, dict(tree))
    onnx.save(model, target)
    return (
        "ranges found anew for each batch" if recurrent else f"ranges of {sum(len(f['signal']) for f in asked):,} rows"
    )

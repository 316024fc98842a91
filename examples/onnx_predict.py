"""Predict a recording by a file of export.py, with the signal chain and onnxruntime alone: no PyTorch.

python export.py pretrained/beats.pt --out beats.onnx
python examples/onnx_predict.py beats.onnx examples/holter.hea
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import pqrst
from beats import context_of, context_of_record, detect
from decide import decide
from recipe import Recipe

if len(sys.argv) != 3:
    sys.exit("usage: onnx_predict.py MODEL.onnx RECORD.hea")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
if said["crops"]:
    sys.exit("this network is asked about pieces of a row, see crops.py; this example does not cut them")
recipe, record = Recipe(**said["recipe"]), pqrst.read(sys.argv[2])
r_peaks = detect(record) if recipe.of_beats else None
prepared = pqrst.prepare([record], recipe.chain(), None if r_peaks is None else [r_peaks])
if r_peaks is None:
    context = np.tile(context_of_record(recipe, lambda: record), (len(prepared.rows), 1))
else:
    context = context_of(recipe, r_peaks, record.fs, lambda: record)[prepared.index]
inputs = {"signal": prepared.rows.astype(np.float32), "context": context, "valid": prepared.valid}
z = session.run(["logits"], {name: inputs[name] for name in said["inputs"]})[0] / said["temperature"]  # (N, K)
odds = np.exp(z - z.max(axis=1, keepdims=True))
scores = odds / odds.sum(axis=1, keepdims=True) if said["task"] == "multiclass" else 1 / (1 + np.exp(-z))
if r_peaks is None:  # the windows of a record are one, each weighing what it holds of the record
    scores = np.average(scores, axis=0, weights=np.diff(prepared.valid)[:, 0])[None]
for row, found in enumerate(decide(scores, said["task"], said["thresholds"])):
    names = "+".join(np.array(said["classes"])[found == 1]) or "none"
    print(f"{prepared.start[row] / record.fs:9.3f} s  {names:<6}", *(f"{score:.5f}" for score in scores[row]))
print(f"columns: {', '.join(said['classes'])}. {said['notice']}")

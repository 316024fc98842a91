"""What the service takes and answers, as its OpenAPI shows it, and the lists of datasets and runs."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models
import runs
from apps.guard import PROBLEM
from apps.jobs import Missing, last_epoch
from apps.scoring import BUNDLED
from apps.uploads import MAX_FILES
from data import SUMMARY, Summary
from formats import FASTEST, SLOWEST
from script import Stop, nearest

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
MAX_DEPTH = 6  # of the settings

# ------------------------------------------------------------------------------------------------ requests


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Start(Body):
    dataset: Name
    """name of a prepared dataset, as GET /datasets lists it"""
    run: Name
    """name of the run that is made"""
    settings: dict[str, Any] = Field(default_factory=dict)
    """sections `model`, `training` and, of `data`, train, validation, test and scored_classes, as in configs/*.yaml"""
    overwrite: bool = False
    """whether a run of that name may be replaced"""

    @field_validator("settings")
    @classmethod
    def _plain(cls, tree: dict[str, Any]) -> dict[str, Any]:
        _check_depth(tree, MAX_DEPTH)
        try:
            json.dumps(tree, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError("holds NaN, infinity or half a character, which are no settings") from error
        return tree


class Export(Body):
    run: Name
    """name of a run, or `bundled`, as GET /models lists them"""
    format: Literal["onnx", "torch"] = "onnx"
    """of the file"""


def _check_depth(tree: Any, left: int) -> None:
    if left < 0:
        raise ValueError(f"is deeper than {MAX_DEPTH} levels")
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _check_depth(value, left - 1)


# The form of POST /predict, which is read piece by piece and not by FastAPI.
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "additionalProperties": False,
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": MAX_FILES,
                            "description": "a WFDB header (.hea) with the signal files that it names, or one .csv",
                        },
                        "fs": {
                            "type": "number",
                            "minimum": SLOWEST,
                            "maximum": FASTEST,
                            "description": "rate of a file that does not tell it, or tells a wrong one, Hz",
                        },
                        "leads": {
                            "type": "string",
                            "description": "the lead to use for each slot, e.g. MLII=ECG1,V1=zeros",
                        },
                        "run": {
                            "type": "string",
                            "pattern": NAME,
                            "description": "name of a run; the newest that fits the record where none is given",
                        },
                    },
                }
            }
        },
    }
}

# ------------------------------------------------------------------------------------------------ answers


class Problem(BaseModel):
    type: str
    title: str
    status: int
    detail: str
    instance: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a route that are problems."""
    content = {PROBLEM: {"schema": Problem.model_json_schema()}}
    return {status: {"description": "What is wrong, in one line", "content": content} for status in statuses}


class Health(BaseModel):
    ready: bool
    version: str
    simd: str
    model: str
    notice: str


class Dataset(BaseModel):
    name: str
    recipe: dict[str, Any]
    classes: list[str]
    task: str
    labelled: str
    records: int
    patients: int | None
    rows: int
    counts: dict[str, int]


class Datasets(BaseModel):
    datasets: list[Dataset]
    unreadable: list[str]


class Network(BaseModel):
    name: str
    parameters: int
    inputs: list[str]
    arguments: dict[str, Any]
    summary: str
    source: str


class Run(BaseModel):
    name: str
    dataset: str
    network: str
    epoch: int | None
    validation: dict[str, float]
    test: dict[str, float]


class Listed(BaseModel):
    networks: list[Network]
    runs: list[Run]
    unreadable: list[str]


class Queued(BaseModel):
    job_id: str
    state: str


class Status(BaseModel):
    job_id: str
    state: Literal["queued", "running", "finished", "failed", "cancelled"]
    run: str
    dataset: str
    epoch: int
    epochs: int
    metrics: dict[str, float]
    eta_s: float | None
    before: int | None
    error: str | None
    log: list[str]


class Origin(BaseModel):
    run: str
    commit: str
    data: str
    date: str


class Finding(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(alias="class")
    probability: float
    threshold: float | None
    present: bool


class Beat(BaseModel):
    name: str = Field(alias="class")
    sample: int
    time_s: float
    probability: float


class Answer(BaseModel):
    """As `infer.py --format json`: findings of a whole record, or beats and what they add up to."""

    record: str
    fs: float
    leads: list[str]
    duration_s: float
    model: Origin
    warnings: list[str]
    findings: list[Finding] = []
    beats: list[Beat] = []
    summary: dict[str, Any] = {}


# ------------------------------------------------------------------------------------------------ lists


def datasets_of(folder: Path) -> Datasets:
    """List the prepared datasets in a folder, and say which cannot be read."""
    listed, unreadable = [], []
    for path in sorted(folder.glob(f"*/{SUMMARY}")):
        try:
            summary = Summary.load(path.parent)
        except Stop as error:
            unreadable.append(str(error).replace(f"{folder}/", ""))
            continue
        listed.append(
            Dataset(
                name=path.parent.name,
                recipe=summary.recipe.tree(),
                classes=list(summary.classes),
                task=summary.task,
                labelled=summary.labelled,
                records=summary.records,
                patients=summary.patients if summary.patients_known else None,
                rows=summary.rows,
                counts=summary.classes_after,
            )
        )
    return Datasets(datasets=listed, unreadable=unreadable)


def dataset_folder(folder: Path, name: str) -> Path:
    """Look up a prepared dataset by its name; Missing where there is none."""
    found = {path.parent.name: path.parent for path in folder.glob(f"*/{SUMMARY}")}
    if name not in found:
        raise Missing(f"dataset {name!r}: there is none of that name{nearest(name, found)}")
    return found[name]


@cache
def networks() -> list[Network]:
    """List the networks that can be trained."""
    return [
        Network(
            name=each.name,
            parameters=each.n_parameters,
            inputs=list(each.inputs),
            arguments=each.arguments,
            summary=each.summary,
            source=each.source,
        )
        for each in models.describe()
    ]


def models_of(folders: dict[str, Path]) -> Listed:
    """List the networks, and the runs of these folders with the scores of their last epoch and of their report."""
    listed, unreadable = [], []
    for name, folder in folders.items():
        try:
            settings = runs.settings_of(folder)
        except Stop as error:
            unreadable.append(str(error).replace(f"{folder.parent}/", ""))
            continue
        line = last_epoch(folder, 0.0)
        scores = {key.removeprefix("validation_"): line[key] for key in line if key.startswith("validation_")}
        epoch = int(line["epoch"]) if "epoch" in line else None
        about = {"name": name, "dataset": settings.data.name, "network": settings.model.name}
        listed.append(Run(**about, epoch=epoch, validation=scores, test=_reported(folder)))
    listed.append(Run(name=BUNDLED, dataset="", network="beatview", epoch=None, validation={}, test={}))
    return Listed(networks=networks(), runs=listed, unreadable=unreadable)


def _reported(folder: Path) -> dict[str, float]:
    """Return the macro scores of a run's report, {} where there is none."""
    try:
        tree = json.loads((folder / runs.REPORT / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        key: value
        for key, value in tree.items()
        if key in ("accuracy", "macro_f1", "macro_auroc") and value is not None
    }

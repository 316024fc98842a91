"""The recipe: all that turns a record into rows. It mirrors csrc/recipe.hpp.

recipe = Recipe(fs=100, leads=[["II", "MLII"]])
pqrst.prepare(record, recipe.tree())                    # the extension takes it as JSON holds it
recipe == read_recipe(recipe.tree(), "dataset.json")
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import pqrst
from script import Stop, nearest
from strip import STRIP_NUMBERS
from view import VIEW_NUMBERS

TWELVE_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# What recordings call an ECG lead, by `pqrst.lead_name`: the twelve, and those of Holters and monitors.
_ECG = re.compile(
    r"((ecg|ekg)[ -]*)?((lead|ch|channel)[ -]*)?"
    r"(-?av[rlf]|i{1,3}|ml(i{1,3}|[123])|c?mv[1-6]|mcl[1-6]|cm[1-6]|v[1-9]?r?|v[x-z]|[x-z]|\d+)|ecg|ekg"
)
_NO_ECG = re.compile(
    r"(index|unnamed.*|n|no|nr|id|sample.*|frame.*|time.*|label.*|class.*|target.*|annotation.*|symbol|beats?|peaks?|"
    r"r_?peaks?|qrs|hr|hrv|heart.?rate|pulse.*|rr|rri|spo2.*|pleth.*|ppg.*|resp.*|abp|art|bp|nibp|pap|cvp|icp|co2|"
    r"etco2|eeg.*|eog.*|emg.*|gsr|eda|temp.*|acc.*|gyr.*|marker.*|event.*|trigger.*|status.*|quality.*|sqi|age|sex)",
    re.IGNORECASE,
)


def ecg_leads(names: Sequence[str]) -> list[bool]:
    """Tell which signals of a recording are ECG leads, by their names.

    Where no name is known for a lead, every signal counts that is not known for something else: `label`, `hr`, `RESP`.
    """
    known = [bool(_ECG.fullmatch(pqrst.lead_name(name))) for name in names]
    return known if any(known) else [not _NO_ECG.fullmatch(name.strip()) for name in names]


# Numbers about a beat that its own window does not show: the RR intervals before and after it, the mean of the ten
# around it, the mean over the record; beats.py computes them, networks/beats.py makes ratios of them.
RRNumber = Literal["rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s"]
RR_NUMBERS: tuple[RRNumber, ...] = get_args(RRNumber)
VIEW: Literal["view"] = "view"  # stands for all numbers of view.py
STRIP: Literal["strip"] = "strip"  # stands for all numbers of strip.py, about a whole recording


class Section(BaseModel):
    """Settings that belong together; frozen, and an unknown key is an error, as is what JSON has no number for."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def tree(self) -> dict[str, Any]:
        """Return the settings as JSON and YAML hold them: dicts, lists, strings, numbers, null."""
        tree: dict[str, Any] = json.loads(self.model_dump_json())
        return tree


class Gaps(Section):
    max_s: float = Field(1.0, ge=0)
    """longest run of invalid samples that is bridged, s; a lead with a longer one is missing in that row"""
    max_fraction: float = Field(0.1, ge=0, le=1)
    """largest share of invalid samples in a row; a lead with more is missing in that row"""


class Bandpass(Section):
    low_hz: float = 0.5
    """lower edge, Hz"""
    high_hz: float = 40.0
    """upper edge, Hz; must be below half the rate of every record"""
    order: int = Field(3, ge=1, le=8)
    """order of the Butterworth prototype, applied forward and backward"""


class Window(Section):
    kind: Literal["record", "window", "beat"] = "record"
    """what a row is: a whole record, a piece of fixed length, or one beat"""
    length_s: float | None = None
    """length of a row, s; or give `samples`"""
    samples: int | None = None
    """length of a row, samples at recipe.fs; or give `length_s`"""
    overlap_s: float = Field(0.0, ge=0)
    """overlap of neighbouring windows, s"""
    before_s: float | None = None
    """part of a beat row ahead of the R peak, s; half the length where null"""

    @model_validator(mode="after")
    def _one_length(self) -> Window:
        if (self.length_s is None) == (self.samples is None):
            raise ValueError("give either length_s or samples")
        return self


class Scale(Section):
    kind: Literal["zscore", "minmax", "none"] = "zscore"
    """zscore: mean 0, deviation 1; minmax: 0..1"""
    over: Literal["lead", "record", "dataset"] = "lead"
    """each lead of a row by itself, all leads of a row together, or all training rows"""
    center: tuple[float, ...] = ()
    """for over: dataset, what is subtracted from each slot, mV; preprocess.py fills it in"""
    spread: tuple[float, ...] = ()
    """for over: dataset, what each slot is divided by, mV; preprocess.py fills it in"""


class Recipe(Section):
    """All that turns a record into rows; stored in dataset.json and in every checkpoint."""

    version: Literal[1] = 1
    """version of the chain: another version may give other bits"""
    fs: float = Field(100.0, gt=0)
    """sampling rate of the rows, Hz"""
    dtype: Literal["float16", "float32"] = "float16"
    """type of the stored rows"""
    leads: tuple[tuple[str, ...], ...] = tuple((lead,) for lead in TWELVE_LEADS)
    """one entry per slot: the accepted lead names in order of preference"""
    missing: Literal["error", "zeros"] = "error"
    """a slot without a lead: refuse the record (row), or fill the slot with zeros and clear its mask bit"""
    gaps: Gaps = Gaps()
    bandpass: Bandpass | None = Bandpass()
    """null: no band-pass"""
    notch_hz: float | None = None
    """mains frequency to remove, Hz; null: no notch"""
    window: Window = Window(length_s=10.0)
    centers: Literal["annotations", "rpeaks"] = "annotations"
    """where the R peaks of beat rows come from"""
    scale: Scale = Scale()
    context: tuple[RRNumber | Literal["view", "strip"], ...] = ()
    """numbers that go beside the signal: about a beat, or `view`, all those of view.py; about a record `strip`"""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.leads or any(not slot for slot in self.leads):
            raise ValueError("leads: every slot needs at least one lead name")
        if self.window.kind == "beat" and STRIP in self.context:
            raise ValueError("context: strip is about a whole record; beat rows take RR numbers and view")
        if set(self.context) - {STRIP} and self.window.kind != "beat":
            raise ValueError("context: only beat rows have RR numbers and view; other rows take strip")
        return self

    @property
    def intervals(self) -> tuple[RRNumber, ...]:
        """Return the RR numbers of the context, in order."""
        return tuple(name for name in self.context if name not in (VIEW, STRIP))

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Return the name of each column of the context: intervals, then the record's view; or those of a strip."""
        if STRIP in self.context:
            return STRIP_NUMBERS
        return (*self.intervals, *(VIEW_NUMBERS if VIEW in self.context else ()))

    @property
    def of_beats(self) -> bool:
        """Whether each row is a beat."""
        return self.window.kind == "beat"

    @property
    def window_s(self) -> float:
        """Length of a row, s."""
        return self.window.length_s or (self.window.samples or 0) / self.fs

    def chain(self) -> dict[str, Any]:
        """Return the tree by which the scripts prepare: a record longer than its row gives the windows that cover it.

        Of the kind `record` itself `pqrst.prepare` keeps the beginning alone.
        """
        tree = self.tree()
        if self.window.kind == "record":
            tree["window"]["kind"] = "whole"
        return tree

    def unscaled(self) -> Recipe:
        """Return the chain up to its scale, which may still lack the numbers of the dataset."""
        scale = self.scale.model_copy(update={"kind": "none"})
        return self.model_copy(update={"dtype": "float32", "scale": scale})

    def differences(self, other: Recipe) -> list[str]:
        """Return one line for each setting that differs in `other`: `recipe.fs: 100.0 -> 360.0`."""
        return differences({"recipe": self.tree()}, {"recipe": other.tree()})


def paddings(prepared: pqrst.Prepared, recipe: Recipe) -> list[tuple[int, str]]:
    """List the records so short that more than a tenth of their only row is padding, each with a sentence that says so.

    Beats at the ends of a record, and the last window of several, are padded as a matter of course.
    """
    if recipe.of_beats or not len(prepared.rows):
        return []
    length = prepared.rows.shape[2]
    inside = prepared.valid[:, 1] - prepared.valid[:, 0]
    short = np.flatnonzero((prepared.index == 0) & (10 * inside < 9 * length))
    seconds = f"of {recipe.window_s:g} s"
    texts = (f"is {inside[row] / recipe.fs:.1f} s long; the rest {seconds} is padding" for row in short)
    return list(zip(prepared.record[short].tolist(), texts, strict=True))


def read_recipe(tree: dict[str, Any], origin: str) -> Recipe:
    """Make a recipe of what a file holds; `Stop` names the file and the first setting that is wrong."""
    try:
        return Recipe(**tree)
    except ValidationError as error:
        raise Stop(f"{origin}: its recipe: {first_error(error, Recipe().tree())}") from error


def first_error(error: ValidationError, valid: dict[str, Any]) -> str:
    """Say in one line what is wrong with the first setting; `valid`: a tree of all settings."""
    first = error.errors()[0]
    given = first["input"].item() if isinstance(first["input"], np.generic) else first["input"]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting {key}{nearest(key, flatten(valid))}"
    return f"{key} = {given!r}: {first['msg']}"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted names: {"data.name": "demo", ...}."""

    def pairs(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from pairs(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", value

    return dict(pairs(tree, prefix))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line for each leaf of two trees that differs: `recipe.fs: 100.0 -> 360.0`."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted({**before, **after})
        if before.get(key) != after.get(key)
    ]

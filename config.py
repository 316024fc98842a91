"""Every setting, once: its default, unit and meaning; read from YAML, environment and command line.

    python train.py --config configs/mitdb.yaml --training.epochs 3 --model.name resnet1d
    ECG_TRAINING__BATCH_SIZE=64 python train.py

Precedence: command line > environment (`ECG_<SECTION>__<KEY>`) > YAML (`--config`) > default.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

CONFIGS = Path(__file__).parent / "configs"
ENV_PREFIX = "ECG_"

# short flag -> setting; every other flag is the setting's own dotted name or an action of one script
ALIASES = {
    "--workers": "data.workers",
    "--dtype": "recipe.dtype",
    "--limit": "data.limit",
    "--fraction": "data.fraction",
}

Strings = Annotated[list[str], BeforeValidator(lambda v: [str(i) for i in v] if isinstance(v, list) else v)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    leads: tuple[tuple[str, ...], ...] = tuple(
        (lead,) for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    )
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
    context: tuple[Literal["rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s"], ...] = ()
    """numbers about a beat that go beside the signal"""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.leads or any(not slot for slot in self.leads):
            raise ValueError("leads: every slot needs at least one lead name")
        if self.context and self.window.kind != "beat":
            raise ValueError("context: only beat rows have a context")
        return self


class Data(Section):
    name: str = "demo"
    """which dataset: a function of sources.py"""
    target: str | None = None
    """what is to be told of it, where a dataset offers several; its first where null"""
    arguments: dict[str, Any] = {}
    """arguments of that function, e.g. '{"rate": 500}'"""
    raw: Path | None = None
    """folder that holds what was downloaded; raw/<name> where null, demo for the demo"""
    dir: Path | None = None
    """folder of the prepared dataset; prepared/<name> where null"""
    split: Literal["patients", "official", "dechazal", "random_rows"] = "patients"
    """how rows get their fold: by patient, as the owner says, de Chazal's DS1/DS2, or at random (leaks patients)"""
    folds: int = Field(10, ge=2, le=100)
    """number of folds that are drawn where the owner gives none"""
    train: Strings = ["0", "1", "2", "3", "4", "5", "6"]
    """folds to learn from"""
    validation: Strings = ["7"]
    """folds that choose the epoch"""
    test: Strings = ["8", "9"]
    """folds that evaluate.py scores"""
    seed: int = 0
    """seed of the folds and of the fraction"""
    limit: int | None = Field(None, ge=1)
    """only the first so many recordings"""
    fraction: float = Field(1.0, gt=0, le=1)
    """only this part of the recordings, drawn alike from those with the same labels"""
    workers: int = Field(0, ge=0)
    """threads of preprocess.py; 0: one per core"""


class Model(Section):
    name: str = "cnn1d"
    """which network: train.py --list_models shows them"""
    arguments: dict[str, Any] = {}
    """arguments of that network, e.g. '{"width": 64}'"""


class Augmentation(Section):
    noise: float = Field(0.0, ge=0)
    """standard deviation of white noise, in units of the row"""
    gain: float = Field(0.0, ge=0, lt=1)
    """each row is multiplied by a factor from 1 - gain to 1 + gain"""
    wander: float = Field(0.0, ge=0)
    """largest amplitude of a slow sine added to each lead, in units of the row"""
    shift_s: float = Field(0.0, ge=0)
    """largest shift in time, s; edges repeat"""


class Training(Section):
    epochs: int = Field(25, ge=1)
    """most epochs"""
    batch_size: int = Field(32, ge=1)
    """rows per optimiser step, over all processes and accumulation steps"""
    accumulation: int = Field(1, ge=1)
    """micro-batches per optimiser step on each process"""
    learning_rate: float = Field(2e-3, gt=0)
    """peak learning rate of AdamW"""
    weight_decay: float = Field(0.01, ge=0)
    """weight decay of AdamW, on weights of two or more dimensions"""
    warmup: float = Field(0.05, ge=0, lt=1)
    """share of all steps in which the rate rises linearly; then it falls as a cosine to 1 % of the peak"""
    clip_norm: float = Field(1.0, ge=0)
    """largest norm of the gradient; 0: no clipping"""
    amp: Literal["auto", "off", "bfloat16", "float16"] = "auto"
    """mixed precision; auto: bfloat16 (else float16) on a GPU, off on a CPU"""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """decay per step of the averaged weights that are validated and kept as best; 0: none"""
    class_weights: Literal["none", "inverse", "sqrt"] = "none"
    """weight of each class in the loss: 1, 1/share, or 1/sqrt(share)"""
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    """each row once per epoch, or rows drawn with the inverse frequency of their classes"""
    augmentation: Augmentation = Augmentation()
    metric: Literal["macro_f1", "macro_auroc", "accuracy", "loss"] = "macro_f1"
    """what decides the best epoch on the validation rows"""
    macro_classes: Strings = []
    """classes that enter the macro scores; empty: all"""
    patience: int = Field(10, ge=0)
    """stop after so many validations without a better score; 0: never"""
    validate_every: int = Field(1, ge=1)
    """validate every so many epochs"""
    seed: int = 0
    """seed of weights, order, dropout and augmentation"""
    workers: int = Field(0, ge=0)
    """processes that load batches; 0: in the training process"""
    threads: int = Field(0, ge=0)
    """CPU threads of each training process; 0: the cores divided by the processes"""


class Evaluation(Section):
    checkpoint: Literal["best", "best-loss", "last"] = "best"
    """which checkpoint of the run"""
    split: Literal["train", "validation", "test"] = "test"
    """which rows"""
    batch_size: int = Field(512, ge=1)
    """rows at a time"""


class Inference(Section):
    leads: str = ""
    """the lead to use for each slot, e.g. MLII=ECG1,V1=zeros"""
    fs: float | None = Field(None, gt=0)
    """rate of a CSV file without a column time, Hz"""
    units_per_mv: float | None = Field(None, gt=0)
    """of the stored values, where a header is wrong or missing: 1000 for uV"""
    batch_size: int = Field(512, ge=1)
    """rows at a time"""


class Settings(BaseSettings):
    """One tree; `load` fills it."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__", use_attribute_docstrings=True
    )
    run: str | None = None
    """folder of the run; runs/<data.name> where null"""
    data: Data = Data()
    recipe: Recipe = Recipe()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    inference: Inference = Inference()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def data_dir(self) -> Path:
        return self.data.dir or Path("prepared") / self.data.name

    @property
    def run_dir(self) -> Path:
        return Path(self.run or f"runs/{self.data.name}")


class Stop(Exception):
    """Something a user can mend: one line on standard error, exit status 2."""


def script(main: Callable[[], Any]) -> NoReturn:
    """Run a script's main; a `Stop`, or an error that a file or an argument causes, ends in one line and status 2."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (Stop, ValueError, OSError) as error:
        if os.environ.get("RANK", "0") == "0":
            print("error: " + one_line(error), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A name to write under, renamed to `path` when all is written: a kill never leaves half a file.

    Raises
    ------
    Stop
        It cannot be written, on a full disk for one; nothing is left then.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # h5py and torch raise either
        told = re.search(r"error message = '([^']*)'", str(error))  # of HDF5, among much else
        raise Stop(
            f"{path}: cannot be written: {told[1] if told else getattr(error, 'strerror', None) or error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """What went wrong and with which file."""
    named = isinstance(error, OSError) and error.filename
    return " ".join((f"{error.filename}: {error.strerror}" if named else str(error)).split())  # type: ignore[attr-defined]


def load(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    base: Callable[[argparse.Namespace], Path] | None = None,
) -> tuple[Settings, argparse.Namespace]:
    """Read all settings.

    Parameters
    ----------
    parser : the script's parser with its own actions and positional arguments; the settings are added to it
    argv : command line without the script's name; sys.argv where None
    base : the YAML to read where the command line names none, e.g. that of a run

    Returns
    -------
    settings, and the namespace with the script's own arguments.

    Raises
    ------
    Stop
        An unknown key (with the nearest valid one), a wrong type, an unreadable YAML file.
    """
    parser.allow_abbrev = False
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--config", type=Path, metavar="YAML", help="file of settings, e.g. configs/mitdb.yaml")
    parser.add_argument("--dataset", metavar="NAME", help="short for --config configs/NAME.yaml")
    command_line: CliSettingsSource[Any] = CliSettingsSource(
        Settings, root_parser=parser, cli_hide_none_type=True, cli_avoid_json=True
    )
    for flag, setting in ALIASES.items():
        parser.add_argument(flag, dest=setting, default=argparse.SUPPRESS, metavar="", help=f"short for --{setting}")
    arguments, unknown = parser.parse_known_args(argv)
    for word in unknown:
        if word.startswith("-"):
            raise Stop(_unknown("option", word.split("=")[0], parser._option_string_actions))
    if unknown:
        raise Stop(f"unexpected argument {unknown[0]!r}")
    if arguments.config and arguments.dataset:
        raise Stop("give --config or --dataset, not both")
    config = CONFIGS / f"{arguments.dataset}.yaml" if arguments.dataset else arguments.config
    if config is None and base is not None:
        config = base(arguments)
        if not config.exists():
            raise Stop(f"{config.parent}: no run there ({config.name} is missing)")

    command_line(parsed_args=vars(arguments))
    merged: dict[str, Any] = {}
    for source in (_read_yaml(config) if config else {}, _environment(), command_line()):
        _merge(merged, source)
    return _validated(merged, str(config) if config else "settings"), arguments


def _validated(tree: dict[str, Any], origin: str) -> Settings:
    try:
        return Settings(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise Stop(f"{origin}: " + _unknown("setting", key, flatten(Settings().model_dump()))) from error
        raise Stop(f"{origin}: {key} = {first['input']!r}: {first['msg']}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        valid = [p.stem for p in CONFIGS.glob("*.yaml")]
        raise Stop(f"{path}: no such file; configs/ has {', '.join(sorted(valid))}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Stop(f"{path}: not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Stop(f"{path}: expected sections such as data: and training:")
    return tree


def _environment() -> dict[str, Any]:
    valid = flatten(Settings().model_dump())
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and "__" in name:
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            if key not in valid and not any(k.startswith(key + ".") for k in valid):
                raise Stop(f"environment variable {name}: " + _unknown("setting", key, valid))
    return EnvSettingsSource(Settings)()


def _merge(into: dict[str, Any], tree: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and key != "arguments":
            _merge(into[key], value)
        else:
            into[key] = value


def _unknown(what: str, name: str, valid: Iterable[str]) -> str:
    return f"unknown {what} {name}{nearest(name, valid)}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing if no valid name is near."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.3)
    return f"; did you mean {near[0]}?" if near else ""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data.name": "demo", ...}; an optional section that is null still shows its keys' parent."""

    def pairs(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from pairs(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", value

    return dict(pairs(tree, prefix))


def plain(model: BaseModel) -> dict[str, Any]:
    """The tree as JSON and YAML hold it: lists, strings, numbers, null."""
    tree: dict[str, Any] = json.loads(model.model_dump_json())
    return tree


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each leaf that differs: `recipe.fs: 100.0 -> 360.0`."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted({**before, **after})
        if before.get(key) != after.get(key)
    ]


def print_overrides(settings: Settings) -> None:
    """Say on standard error what differs from the defaults."""
    changed = differences(plain(Settings()), plain(settings))
    if changed:
        print("settings that differ from the defaults:", *changed, sep="\n  ", file=sys.stderr)

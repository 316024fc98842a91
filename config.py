"""Every setting, once: its default, unit and meaning; read from YAML, environment and command line.

    python train.py --config configs/mitdb.yaml --training.epochs 3 --model.name resnet1d
    ECG_TRAINING__BATCH_SIZE=64 python train.py

Precedence: command line > environment (`ECG_<SECTION>__<KEY>`) > YAML (`--config`) > default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.config import JsonDict
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from recipe import Recipe, Section, differences, first_error, flatten
from script import Stop, nearest

CONFIGS = Path(__file__).parent / "configs"
ENV_PREFIX = "ECG_"

# short flag -> setting; every other flag is the setting's own dotted name or an action of one script
ALIASES = {
    "--run": "run_dir",  # torchrun takes it for an abbreviation of its own: there, say --run_dir
    "--workers": "data.workers",
    "--dtype": "recipe.dtype",
    "--limit": "data.limit",
    "--fraction": "data.fraction",
}

# Older names of settings.
MOVED = {"training.macro_classes": "data.scored_classes", "run": "run_dir"}

# Marks a setting that belongs to the machine and not to the work: a run goes on where it has another value.
MACHINE: JsonDict = {"machine": True}

Strings = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: [str(i) for i in v] if isinstance(v, list | tuple) else v)
]


class Data(Section):
    name: str = "demo"
    """which dataset: a function of sources.py"""
    target: str | None = None
    """which labels, where a dataset offers several targets; its first target where null"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """arguments of the function, e.g. '{"rate": 500}'"""
    raw: Path | None = Field(None, json_schema_extra=MACHINE)
    """folder that holds what was downloaded; raw/<name> where null, demo for the demo"""
    dir: Annotated[Path | None, BeforeValidator(lambda v: ",".join(v) if isinstance(v, list) else v)] = None
    """folder of the prepared dataset, of several with a comma between; prepared/<name> where null"""
    split: Literal["patients", "official", "dechazal", "random_rows"] = "patients"
    """how rows get their fold: by patient, as the owner says, de Chazal's DS1/DS2, or at random (leaks patients)"""
    folds: int = Field(10, ge=2, le=100)
    """number of folds that are drawn where the owner gives none"""
    train: Strings = ("0", "1", "2", "3", "4", "5", "6")
    """folds to learn from"""
    validation: Strings = ("7",)
    """folds that choose the epoch; none: all epochs are trained, and the last is kept"""
    test: Strings = ("8", "9")
    """folds that evaluate.py scores"""
    scored_classes: Strings = ()
    """classes that enter every macro score, e.g. N,S,V of beats; empty: all"""
    seed: int = 0
    """seed of the folds and of the fraction"""
    limit: int | None = Field(None, ge=1)
    """only the first so many recordings"""
    fraction: float = Field(1.0, gt=0, le=1)
    """only this part of the recordings, drawn alike from those with the same labels"""
    variants: int = Field(0, ge=0, le=100)
    """changed forms of each recording of beats, to train on (variants.py): those of fold 0 are fold 0+"""
    workers: int = Field(0, ge=0, json_schema_extra=MACHINE)
    """threads of preprocess.py; 0: one per core"""


class Model(Section):
    name: str = "cnn1d"
    """which network: train.py --list_models shows them"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """arguments of the network, e.g. '{"width": 64}'"""
    pretrained: Path | None = None
    """run, or checkpoint, of the same network and recipe to begin with: other classes get a fresh last layer"""


class Augmentation(Section):
    noise: float = Field(0.0, ge=0)
    """standard deviation of white noise, in units of the row"""
    gain: float = Field(0.0, ge=0, lt=1)
    """each row is multiplied by a factor from 1 - gain to 1 + gain"""
    wander: float = Field(0.0, ge=0)
    """largest amplitude of a slow sine added to each lead, in units of the row"""
    shift_s: float = Field(0.0, ge=0)
    """largest shift in time, s; edges repeat"""
    polarity: float = Field(0.0, ge=0, le=1)
    """chance that a row is turned upside down"""
    lead_dropout: float = Field(0.0, ge=0, lt=1)
    """chance of each lead to become zero; never all that have a signal"""
    lead_subset: float = Field(0.0, ge=0, le=1)
    """chance that a row keeps a random number of its leads with a signal, 1 to all; the others become zero, as missing
    ones are"""
    time_mask_s: float = Field(0.0, ge=0)
    """longest stretch that becomes zero in all leads, s"""


class Cropping(Section):
    length_s: float | None = Field(None, gt=0)
    """learn from random pieces of each row this long, s, and score rows by pieces that cover them; null: whole rows"""
    stride_s: float | None = Field(None, gt=0)
    """from one piece that is scored to the next, s; their length where null"""
    pool: Literal["mean", "max"] = "mean"
    """score of a row: the mean over its pieces, or the highest of each class"""


class Training(Section):
    objective: Literal["labels", "masked", "contrastive"] = "labels"
    """what is learnt: the labels, or without them to fill in hidden pieces or to tell what comes next"""
    epochs: int = Field(25, ge=1)
    """most epochs"""
    batch_size: int = Field(32, ge=1)
    """rows per optimiser step, over all processes and accumulation steps"""
    accumulation: int = Field(1, ge=1)
    """micro-batches per optimiser step on each process"""
    learning_rate: float = Field(2e-3, gt=0)
    """peak learning rate of AdamW"""
    schedule: Literal["cosine", "one_cycle", "constant", "step", "plateau"] = "cosine"
    """how the rate goes on after the warm-up: schedules.py; plateau: a tenth where the score stands still"""
    plateau_patience: int = Field(3, ge=1)
    """validations without a better score after which the schedule `plateau` lowers the rate"""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """the rate of each layer is that of the next one times this: of networks that say the order of their layers"""
    freeze: bool = False
    """only the last layer learns, and the rest stays as it begins"""
    weight_decay: float = Field(0.01, ge=0)
    """weight decay of AdamW, on weights of two or more dimensions"""
    warmup: float = Field(0.05, ge=0, lt=1)
    """share of all steps in which the rate rises"""
    clip_norm: float = Field(1.0, ge=0)
    """largest norm of the gradient; 0: no clipping"""
    amp: Literal["auto", "off", "bfloat16", "float16"] = "auto"
    """mixed precision; auto: bfloat16 (else float16) on a GPU, off on a CPU"""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """decay per step of the averaged weights that are validated and kept as best; 0: none"""
    class_weights: Literal["none", "inverse", "sqrt"] = "none"
    """weight of each class in the loss: 1, 1/share, or 1/sqrt(share); one that is not scored gets the least of them"""
    loss: Literal["cross_entropy", "focal", "asymmetric"] = "cross_entropy"
    """of softmax or of sigmoids; focal and asymmetric (multilabel only) forget what is easy"""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """share of each label that is spread over all classes"""
    mixup: float = Field(0.0, ge=0)
    """mix each row with another of its batch, by a share from the beta distribution with this parameter; 0: none"""
    teachers: Strings = ()
    """runs with a comma between, whose mean score of each training row is mixed into its label: distill.py"""
    distill: float = Field(0.5, ge=0, le=1)
    """share of each label that the teachers' mean score makes up"""
    crops: Cropping = Cropping()
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    """each row once per epoch, or rows drawn with the inverse frequency of their classes"""
    augmentation: Augmentation = Augmentation()
    sensitivity: float | None = Field(None, gt=0, le=1)
    """of several classes in a row: thresholds that find this share of each on the validation rows; null: the best F1"""
    metric: Literal["macro_f1", "macro_auroc", "accuracy", "loss"] = "macro_f1"
    """what decides the best epoch on the validation rows"""
    patience: int = Field(10, ge=0)
    """stop after so many validations without a better score; 0: never"""
    validate_every: int = Field(1, ge=1)
    """validate every so many epochs"""
    seed: int = Field(0, ge=0)
    """seed of weights, order, dropout and augmentation"""
    deterministic: bool = False
    """only algorithms that give the same bits each time; on a CPU all do"""
    compile: bool = False
    """compile the network with torch.compile, which takes minutes and pays in long trainings"""
    workers: int = Field(1, ge=0, json_schema_extra=MACHINE)
    """threads that fetch batches ahead; 0: the training fetches them itself"""
    threads: int = Field(0, ge=0, json_schema_extra=MACHINE)
    """CPU threads of each training process; 0: the cores divided by the processes"""
    track: Strings = Field((), json_schema_extra=MACHINE)
    """who else is told of each epoch, of tensorboard, mlflow and wandb, with a comma between: trackers.py"""


class Evaluation(Section):
    checkpoint: Literal["best", "best-loss", "last"] = "best"
    """which checkpoint of the run"""
    split: Literal["train", "validation", "test"] = "test"
    """which rows"""
    r_peaks: Literal["annotated", "detected"] = "annotated"
    """of beats in other recordings (--data.raw): where they are, as annotated or as infer.py finds them"""
    first_s: float = Field(300.0, ge=0)
    """where runs of beats and heart rates of other recordings count from: EC57 leaves five minutes for learning, s"""
    windows: bool = False
    """score the windows of a record one by one, and not as one"""
    challenge: Path | None = None
    """table of weights (weights_abbreviations.csv) of the CinC challenges of 2020 and 2021, for their score"""
    batch_size: int = Field(512, ge=1)
    """rows at a time"""


class Inference(Section):
    leads: str = ""
    """the lead to use for each slot, e.g. MLII=ECG1,V1=zeros"""
    fs: float | None = Field(None, gt=0)
    """rate of a file that does not tell it, or tells a wrong one, Hz"""
    units_per_mv: float | None = Field(None, gt=0)
    """of the stored values, where a header is wrong or missing: 1000 for uV"""
    batch_size: int = Field(512, ge=1)
    """rows at a time"""


class Settings(Section, BaseSettings):
    """The tree of all settings; `load` fills it."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__")
    run_dir: str | None = None
    """folder of the run; runs/<data.name> where null; for infer.py also a checkpoint, or `latest`"""
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
    def data_dirs(self) -> list[Path]:
        """The prepared datasets, which train.py and evaluate.py take as one."""
        named = str(self.data.dir or Path("prepared") / self.data.name)
        return [Path(name.strip()) for name in named.split(",") if name.strip()]

    @property
    def run_folder(self) -> Path:
        return Path(self.run_dir or f"runs/{self.data.name}")


def load(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    base: Callable[[argparse.Namespace], Path | None] | None = None,
) -> tuple[Settings, argparse.Namespace]:
    """Read all settings: those of `read`, made one.

    Returns
    -------
    settings, and the namespace with the script's own arguments.

    Raises
    ------
    Stop
        An unknown key (with the nearest valid one), a wrong type, an unreadable YAML file.
    """
    trees, arguments = read(parser, argv, base)
    return validated(trees), arguments


def read(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    base: Callable[[argparse.Namespace], Path | None] | None = None,
) -> tuple[dict[str, dict[str, Any]], argparse.Namespace]:
    """Read what the YAML, the environment and the command line say, each a tree of its own.

    Parameters
    ----------
    parser : the script's parser with its own actions and positional arguments; the settings are added to it
    argv : command line without the script's name; sys.argv where None
    base : the YAML to read where the command line names none, e.g. that of a run

    Returns
    -------
    trees by their origin, a later one above, and the namespace with the script's own arguments.

    Raises
    ------
    Stop
        An unknown option or variable (with the nearest valid one), an unreadable YAML file.
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
            option = word.split("=")[0]
            now = MOVED.get(option.removeprefix("--"))
            raise Stop(
                f"unknown option {option}"
                + (f"; it is --{now} now" if now else nearest(option, parser._option_string_actions))
            )
    if unknown:
        raise Stop(f"unexpected argument {unknown[0]!r}")
    if arguments.config and arguments.dataset:
        raise Stop("give --config or --dataset, not both")
    config = CONFIGS / f"{arguments.dataset}.yaml" if arguments.dataset else arguments.config
    if config is None and base is not None:
        config = base(arguments)
        if config is not None and not config.exists():
            raise Stop(f"{config.parent}: no run there ({config.name} is missing)")

    command_line(parsed_args=vars(arguments))
    trees = {str(config): read_yaml(config)} if config else {}
    trees |= {"environment": _environment(), "command line": command_line()}
    return trees, arguments


def validated(trees: Mapping[str, dict[str, Any]]) -> Settings:
    """Make settings of trees by their origin, a later one above; `Stop` names the origin of what is wrong."""
    merged: dict[str, Any] = {}
    for tree in trees.values():
        _merge(merged, tree)
    try:
        return Settings(**merged)
    except ValidationError as error:
        place = [str(part) for part in error.errors()[0]["loc"]]
        key = ".".join(place)
        origin = next((name for name, tree in [*trees.items()][::-1] if _holds(tree, place)), "settings")
        moved = f"unknown setting {key}; it is {MOVED[key]} now" if key in MOVED else ""
        raise Stop(f"{origin}: {moved or first_error(error, Settings().tree())}") from error


def _holds(tree: Any, place: Sequence[str]) -> bool:
    """Tell whether a tree says anything at this place, where it is a tree so far."""
    for part in place:
        if not isinstance(tree, dict):
            break
        if part not in tree:
            return False
        tree = tree[part]
    return True


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if twice := _named_twice(root):
            raise Stop(f"{path}: {twice} stands there twice")
        tree = None if root is None else loader.construct_document(root)
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


def _named_twice(root: yaml.Node | None) -> str | None:
    """Name a key that a mapping of a YAML holds twice: the loader keeps the last one and tells nobody."""
    waiting: list[tuple[yaml.Node | None, str]] = [(root, "")]
    looked_at: set[int] = set()  # an alias may lead back to what holds it
    while waiting:
        node, above = waiting.pop()
        if id(node) in looked_at:
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(each, above) for each in node.value]
        elif isinstance(node, yaml.MappingNode):
            names = [f"{above}{key.value}" for key, _ in node.value]
            if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
                return twice
            waiting += [(value, f"{name}.") for name, (_, value) in zip(names, node.value, strict=True)]
    return None


class _Environment(EnvSettingsSource):
    """Variables, of which a list is JSON or has a comma between its words, as on the command line."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            decoded = json.loads(value)
        except ValueError:
            return value.split(",")
        return decoded if decoded is None or isinstance(decoded, list | dict) else value.split(",")


def _environment() -> dict[str, Any]:
    valid = flatten(Settings().tree())
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and "__" in name:
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            if key not in valid and not any(k.startswith(key + ".") for k in valid):
                raise Stop(f"environment variable {name}: unknown setting {key}{nearest(key, valid)}")
    return _Environment(Settings)()


def _merge(into: dict[str, Any], tree: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and key != "arguments":
            if not isinstance(into.get(key), dict):
                into[key] = {}  # the tree that it comes from stays as it is
            _merge(into[key], value)
        else:
            into[key] = value


def of_the_work(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide what a training does: not those of the machine, nor of the scripts after it."""
    return {
        key: value for key, value in _unmarked(settings).items() if key not in ("run_dir", "evaluation", "inference")
    }


def _unmarked(section: BaseModel) -> dict[str, Any]:
    kept = {
        key: getattr(section, key)
        for key, field in type(section).model_fields.items()
        if field.json_schema_extra != MACHINE
    }
    tree = section.model_dump(mode="json")
    return {key: _unmarked(value) if isinstance(value, BaseModel) else tree[key] for key, value in kept.items()}


def print_overrides(settings: Settings) -> None:
    """Say on standard error what differs from the defaults."""
    changed = differences(Settings().tree(), settings.tree())
    if changed:
        print("settings that differ from the defaults:", *changed, sep="\n  ", file=sys.stderr)

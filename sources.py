"""List the recordings of each dataset with their patients, labels and official folds: one function per dataset.

A new dataset is a function under `@source(...)` and a YAML in configs/. This file knows nothing of signals. codes.csv
says what the owners' codes mean, one line for each code; an empty column means that the code has no class there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pqrst
import readers
from script import Stop, nearest

if TYPE_CHECKING:
    import pandas as pd

CODES = Path(__file__).parent / "codes.csv"


class About(NamedTuple):
    """What a source knows of the person and the place of a recording. For reports only, never for training."""

    age: float | None = None  # years
    sex: Literal["F", "M", ""] = ""
    device: str = ""
    site: str = ""


NOTHING_KNOWN = About()


class Recording(NamedTuple):
    """One recording of a dataset."""

    locator: str  # path below the raw folder, or path#row
    patient: str
    labels: tuple[str, ...] = ()  # of the whole recording, in the owner's words
    fold: str | None = None  # the owner's; None: preprocess.py draws one
    annotations: str | None = None  # extension of the file with beats and rhythms
    units_per_mv: float | None = None  # of the stored values, where a header is wrong or missing
    fs: float | None = None  # where the file does not say
    table: str = ""  # the file that names the recording; a failure quotes it and the row
    row: int = 0
    patient_known: bool = True  # otherwise the recording stands for a patient of its own
    about: About = NOTHING_KNOWN


class Problem(NamedTuple):
    """A recording, or a part of it, that was left out or is doubtful, and why."""

    record: str  # its locator, or its name in a table; empty where the whole dataset is meant
    stage: str  # table (a warning) | index | labels | read | rpeaks | leads | amplitude | filter | rows
    reason: str  # without the name of the record and the folder of the dataset

    @property
    def locator(self) -> str:
        """Return `record` under the name that Recording uses: a source yields objects of either class."""
        return self.record

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}" if self.record else self.reason


@dataclass(frozen=True)
class Target:
    """The classes that a recording, a window or a beat can have, and where its labels come from."""

    classes: tuple[str, ...]  # () until the recordings are known: their labels, sorted
    task: Literal["multiclass", "multilabel"] = "multilabel"
    of: Mapping[str, str] | None = None  # the owner's label -> class, "" for none; None: the labels are the classes
    rows: Literal["recordings", "beats", "rhythms"] = "recordings"  # what carries the labels
    without: Literal["kept", "left out"] = "left out"  # a recording or window without any of the classes
    unknown: Literal["left out", "counted"] = "left out"  # a recording with a label that `of` does not know


@dataclass(frozen=True)
class Source:
    """A dataset: its targets, the default first, and the function that lists its recordings."""

    targets: Mapping[str, Target]
    recordings: Callable[..., Iterator[Recording | Problem]]  # (raw folder, its own arguments)
    own_folds: bool = False  # its folds are the user's, and hold where others would be drawn by patient


SOURCES: dict[str, Source] = {}
Function = Callable[..., Iterator[Recording | Problem]]


def source(
    classes: tuple[str, ...] = (),
    task: Literal["multiclass", "multilabel"] = "multilabel",
    own_folds: bool = False,
    **targets: Target,
) -> Callable[[Function], Function]:
    """Register a function `(raw folder) -> recordings` under its name, with the classes that it yields or with targets.

    If only classes are given, a recording of a multilabel dataset with none of them is kept as normal.
    """
    if not targets:
        targets = {"labels": Target(classes, task, without="kept" if task == "multilabel" else "left out")}

    def register(function: Function) -> Function:
        SOURCES[function.__name__] = Source(targets, function, own_folds)
        return function

    return register


def source_of(name: str) -> Source:
    """Return the dataset of this name; Stop where there is none, with the nearest."""
    if name not in SOURCES:
        raise Stop(f"data.name = {name!r}: no such dataset ({', '.join(SOURCES)}){nearest(name, SOURCES)}")
    return SOURCES[name]


# ------------------------------------------------------------------------------------------------ codes and tables


@cache
@cache
def code_lines() -> list[dict[str, str]]:
    """Return the lines of codes.csv."""
    with CODES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def codes(system: str, column: str) -> dict[str, str]:
    """Return code -> class by a column of codes.csv, "" for none, in the order of the file."""
    return {line["code"]: line[column] for line in code_lines() if line["system"] == system}


def target_of(system: str, column: str, order: tuple[str, ...] | None = None, **more: Any) -> Target:
    """Return the target whose classes a column of codes.csv names, sorted unless an order is given."""
    of = codes(system, column)
    return Target(order or tuple(sorted(set(of.values()) - {""})), of=of, **more)


IDS = ("ecg_id", "exam_id", "patient_id", "strat_fold", "study_id", "subject_id")
FLOAT = re.compile(r"^\s*(\d+)\.0+\s*$")  # a whole number as pandas writes it beside empty cells: 438277.0


def table(path: Path, columns: tuple[str, ...], **options: Any) -> pd.DataFrame:
    """Read a CSV file as text. The index numbers the rows as a spreadsheet does.

    Ids that were written as floating-point numbers lose their decimal place.

    Raises
    ------
    Stop
        The file is no CSV table, or lacks one of the columns.
    """
    import pandas as pd  # slow to import; beats need no table

    try:
        found: pd.DataFrame = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    except (ValueError, UnicodeDecodeError) as error:  # errors of pandas are ValueErrors too
        raise Stop(f"{path}: not a CSV table: {error}") from error
    if missing := [column for column in columns if column not in found.columns]:
        raise Stop(f"{path}: has no column {', '.join(missing)}; it has {', '.join(map(str, found.columns))}")
    for column in found.columns.intersection(list(IDS)):
        found[column] = found[column].str.replace(FLOAT, r"\1", regex=True)
    found.index += 1 if options.get("header", 0) is None else 2
    return found


def once(path: Path, found: pd.DataFrame, key: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the table without the rows that name a recording again, and a problem for each of these."""
    again = found[key].duplicated()
    names = found.loc[again, key].items()
    return found[~again], [
        Problem(str(n), "index", f"{path}, row {row}: names {n} again; the first counts") for row, n in names
    ]


def true(column: pd.Series[str]) -> pd.Series[bool]:
    """Return which cells hold `true` or 1."""
    return column.str.strip().str.lower().isin(("true", "1", "1.0"))


def by_stem(raw: Path, *suffixes: str) -> dict[str, str]:
    """Return name without suffix -> path of every recording below a folder; if names repeat, the least deep path."""
    paths = [path for suffix in suffixes for path in raw.rglob(f"*{suffix}")]
    paths.sort(key=lambda path: (len(path.parts), path), reverse=True)
    return {path.stem: path.relative_to(raw).as_posix() for path in paths}


def comment_lines(path: Path) -> list[str] | None:
    """Read the comments of a header; None for a header that cannot be read.

    Such a header becomes a problem later, when the index looks at the recording.
    """
    try:
        return list(pqrst.header(path).comments)
    except (OSError, ValueError):
        return None


def comments(path: Path) -> dict[str, str] | None:
    """Read the `# key: value` lines of a header, keys in lower case; None for a header that cannot be read."""
    lines = comment_lines(path)
    if lines is None:
        return None
    pairs = (line.partition(":") for line in lines)
    return {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


# ------------------------------------------------------------------------------------------------ age and sex

OLDEST = 120  # years; a number above it, or below 0, stands for an unknown age
SEXES: Mapping[str, Literal["F", "M"]] = {"f": "F", "female": "F", "m": "M", "male": "M"}
HOLTER_LINE = re.compile(r"^\s*(\d+|-1|\?)\s+([MF?])\s")  # of MIT-BIH: 69 M 1085 1629 x1


def age_of(text: str) -> float | None:
    """Return an age in years; None for what is no number of years: empty, NaN, Unknown, -1."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age <= OLDEST else None


def about_of(notes: Mapping[str, str]) -> About:
    """Return age and sex from `age` and `sex` among the comments of a header."""
    return About(age_of(notes.get("age", "")), SEXES.get(notes.get("sex", "").lower(), ""))


def about_of_holter(lines: Iterable[str]) -> About:
    """Return age and sex from the comments of MIT-BIH, whose first line begins with both: `69 M 1085 1629 x1`."""
    for line in lines:
        if found := HOLTER_LINE.match(line):
            return About(age_of(found[1]), SEXES.get(found[2].lower(), ""))
    return NOTHING_KNOWN


def column(found: pd.DataFrame, name: str) -> list[str]:
    """Return the cells of a column without blanks around and doubled inside; empty ones where there is no column."""
    cells = found[name].tolist() if name in found else [""] * len(found)
    return [FLOAT.sub(r"\1", " ".join(cell.split())) for cell in cells]


# ------------------------------------------------------------------------------------------------ beats

AAMI = {code: name for code, name in codes("wfdb", "aami").items() if name}  # ANSI/AAMI EC57
BEAT_SYMBOLS = frozenset(codes("wfdb", "aami"))  # every annotation that marks a beat (WFDB application guide)
BEATS = target_of("wfdb", "aami", ("N", "S", "V", "F", "Q"), task="multiclass", rows="beats")

# De Chazal, O'Dwyer and Reilly 2004: training and test records of MIT-BIH; AAMI practice leaves the paced ones out.
# fmt: off
DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)
DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210",
    "212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)
PACED = ("102", "104", "107", "217")
SAME_PERSON = {"202": "201"}
# fmt: on


@source(beats=BEATS)
def mitdb(raw: Path) -> Iterator[Recording]:
    """MIT-BIH Arrhythmia Database 1.0.0: two-lead Holter recordings of half an hour, every beat annotated.

    Records 201 and 202 come from one person. The folds are de Chazal's DS1 and DS2; the paced records form a third.
    """
    groups = {name: group for group, names in (("DS1", DS1), ("DS2", DS2), ("paced", PACED)) for name in names}
    for header in sorted(raw.glob("*.hea")):
        patient = SAME_PERSON.get(header.stem, header.stem)
        about = about_of_holter(comment_lines(header) or ())
        yield Recording(header.name, patient, fold=groups.get(header.stem), annotations="atr", about=about)


@source(beats=BEATS)
def svdb(raw: Path) -> Iterator[Recording]:
    """MIT-BIH Supraventricular Arrhythmia Database 1.0.0: two-lead Holter recordings of half an hour.

    The leads are called ECG1 and ECG2; their positions are unknown. No patient table is published, and the headers
    have no comments, so nothing is known of age and sex.
    """
    for header in sorted(raw.glob("*.hea")):
        yield Recording(header.name, header.stem, annotations="atr", patient_known=False)


@source(
    beats=Target(("N", "S", "V", "Q"), "multiclass", {name: name for name in "NSVQ"}, "beats"),
    rhythms=Target(
        ("N", "AFIB", "AFL"), "multiclass", {"(N": "N", "(AFIB": "AFIB", "(AFL": "AFL"}, "rhythms", unknown="counted"
    ),
)
def icentia11k(raw: Path) -> Iterator[Recording]:
    """Icentia11k 1.0: single-lead patches, up to 50 segments of 70 minutes a patient, beats and rhythms annotated.

    Tan et al. 2019. Q marks a beat without a class.
    """
    for header in sorted(raw.rglob("p*_s*.hea")):
        yield Recording(header.relative_to(raw).as_posix(), header.parent.name, annotations="atr")


# ------------------------------------------------------------------------------------------------ PTB-XL, PTB


@source(
    superdiagnostic=target_of("scp", "superdiagnostic", ("NORM", "MI", "STTC", "CD", "HYP")),
    subdiagnostic=target_of("scp", "subdiagnostic"),
    diagnostic=Target(
        tuple(sorted(code for code, group in codes("scp", "superdiagnostic").items() if group)),
        of={code: code if group else "" for code, group in codes("scp", "superdiagnostic").items()},
    ),
    form=target_of("scp", "form"),
    rhythm=target_of("scp", "rhythm"),
    all=Target(tuple(sorted(codes("scp", "form"))), of={code: code for code in codes("scp", "form")}),
)
def ptbxl(raw: Path, rate: int = 100) -> Iterator[Recording | Problem]:
    """PTB-XL 1.0.x: 12 leads, 10 s; statements of the SCP-ECG standard, folds by patient.

    As in the benchmark of Strodthoff et al. 2020: a statement counts whatever its likelihood (0 is unknown, not
    absent), and a recording without any statement of the target is left out. `rate`: the version to read, 100 or 500.
    Ages above 89 are published as 300 and kept as 90: read 90 as `90 or more`.
    """
    path = raw / "ptbxl_database.csv"
    name_column = {100: "filename_lr", 500: "filename_hr"}.get(rate)
    if name_column is None:
        raise Stop(f"data.arguments: rate = {rate!r}: PTB-XL comes at 100 and at 500 Hz")
    found = table(path, ("ecg_id", "patient_id", "scp_codes", "strat_fold", name_column))
    found, again = once(path, found, "ecg_id")
    yield from again
    columns = (found[name].tolist() for name in (name_column, "patient_id", "scp_codes", "strat_fold"))
    people = zip(*(column(found, name) for name in ("age", "sex", "device", "site")), strict=True)
    for row, name, patient, statements, fold, person in zip(found.index, *columns, people, strict=True):
        # a Python dictionary in a cell: the codes are its quoted words
        labels = tuple(re.findall(r"'([^']+)'", statements))
        yield Recording(f"{name}.hea", patient, labels, fold, table=str(path), row=row, about=_of_ptbxl(*person))


def _of_ptbxl(age: str, sex: str, device: str, site: str) -> About:
    sexes: Mapping[str, Literal["F", "M"]] = {"0": "M", "1": "F"}
    return About(90.0 if age == "300" else age_of(age), sexes.get(sex, ""), device, site)


PTB_DIAGNOSES = {
    "myocardial infarction": "MI",
    "healthy control": "healthy",
    "cardiomyopathy": "cardiomyopathy",
    "heart failure": "cardiomyopathy",
    "bundle branch block": "BBB",
    "dysrhythmia": "dysrhythmia",
    "hypertrophy": "hypertrophy",
    "myocardial hypertrophy": "hypertrophy",
    "valvular heart disease": "valvular",
    "myocarditis": "myocarditis",
    "miscellaneous": "miscellaneous",
    "stable angina": "miscellaneous",
    "unstable angina": "miscellaneous",
    "palpitation": "miscellaneous",
    "n/a": "",
}


@source(
    infarction=Target(
        ("healthy", "MI"), "multiclass", {k: v if v in ("healthy", "MI") else "" for k, v in PTB_DIAGNOSES.items()}
    ),
    diagnosis=Target(tuple(dict.fromkeys(v for v in PTB_DIAGNOSES.values() if v)), "multiclass", PTB_DIAGNOSES),
)
def ptbdb(raw: Path) -> Iterator[Recording]:
    """PTB Diagnostic ECG Database 1.0.0: 15 leads at 1000 Hz, about two minutes; the diagnosis is in the header."""
    for header in sorted(raw.glob("patient*/s*.hea")):
        notes = comments(header) or {}
        reason = notes.get("reason for admission", "n/a").lower()
        label = re.sub(r"\s*\(.*", "", reason)  # heart failure (NYHA 2)
        yield Recording(header.relative_to(raw).as_posix(), header.parent.name, (label,), about=about_of(notes))


# ------------------------------------------------------------------------------------------------ CODE

CODE_CLASSES = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")  # ST is sinus tachycardia; the tables order them differently
_IS_MALE: Mapping[str, Literal["F", "M"]] = {"true": "M", "1": "M", "false": "F", "0": "F"}


@source(
    labels=Target(CODE_CLASSES, of={**{name: name for name in CODE_CLASSES}, "normal": ""}, without="kept"),
    with_normal=Target((*CODE_CLASSES, "normal"), without="kept"),
)
def code15(raw: Path) -> Iterator[Recording | Problem]:
    """CODE-15%: 345,779 exams of 12 leads at 400 Hz in HDF5 parts, six abnormalities (Ribeiro et al. 2021).

    An exam with none of them is kept: it may be normal (the target `with_normal` tells) or have something else. Exams
    are found by their id. A row that the table does not name is a problem, unless it is one of the empty rows at the
    end of a part.
    """
    import h5py

    path = raw / "exams.csv"
    found = table(path, ("exam_id", "patient_id", "trace_file", *CODE_CLASSES))
    found, again = once(path, found, "exam_id")
    yield from again
    column_of = {"normal": "normal_ecg", **{name: name for name in CODE_CLASSES}}
    flags = {name: true(found[cell]).to_numpy() for name, cell in column_of.items() if cell in found}
    labels = [tuple(name for name, flag in flags.items() if flag[i]) for i in range(len(found))]
    people = zip(column(found, "age"), column(found, "is_male"), strict=True)
    about = [About(age_of(age), _IS_MALE.get(male.lower(), "")) for age, male in people]
    columns = (found["patient_id"], labels, found["trace_file"], found.index, about)
    exams = dict(zip(found["exam_id"], zip(*columns, strict=True), strict=True))
    for name in sorted(set(found["trace_file"])):
        try:
            with h5py.File(raw / name, "r") as file:
                ids = [str(int(number)) for number in file["exam_id"][()]]
        except (OSError, KeyError) as error:
            n = int((found["trace_file"] == name).sum())
            yield Problem(name, "index", f"{raw / name}: cannot be read, and with it {n} exams: {error}")
            continue
        for row, exam in enumerate(ids):
            if exam in exams and exams[exam][2] == name:
                patient, labels_of_exam, _, line, person = exams.pop(exam)
                place = f"{name}#{row}"
                yield Recording(place, patient, labels_of_exam, table=str(path), row=line, about=person)
            elif exam != "0":
                yield Problem(f"{name}#{row}", "index", f"{path}: has no row for exam {exam} of {name}")
        for exam, line in [(exam, line) for exam, (_, _, part, line, _) in exams.items() if part == name]:
            yield Problem(exam, "index", f"{raw / name}: has no exam {exam}, which {path} names in row {line}")


@source(CODE_CLASSES)
def codetest(raw: Path) -> Iterator[Recording]:
    """CODE-test: 827 exams of other patients with the labels of a committee, for testing only: one fold, `test`."""
    below = "data/" if (raw / "data" / "annotations").is_dir() else ""  # the archive unpacks into data/
    path = raw / below / "annotations" / "gold_standard.csv"
    found = table(path, CODE_CLASSES)
    flags = {name: true(found[name]).to_numpy() for name in CODE_CLASSES}
    for row in range(len(found)):
        labels = tuple(name for name in CODE_CLASSES if flags[name][row])
        place = f"{below}ecg_tracings.hdf5#{row}"
        line = int(found.index[row])
        yield Recording(place, f"row {row}", labels, "test", table=str(path), row=line, patient_known=False)


# ------------------------------------------------------------------------------------------------ challenges


CPSC_CLASSES = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")


@source(labels=Target(CPSC_CLASSES, of={str(i + 1): name for i, name in enumerate(CPSC_CLASSES)}))
def cpsc2018(raw: Path) -> Iterator[Recording | Problem]:
    """CPSC 2018: 12 leads at 500 Hz, 6 to 60 s, up to three of nine classes; MATLAB structs or WFDB."""
    paths = by_stem(raw, ".mat", ".hea")
    reference = next(iter(sorted(raw.rglob("REFERENCE.csv"))), raw / "REFERENCE.csv")
    columns = ("Recording", "First_label", "Second_label", "Third_label")
    found = table(reference, columns)
    found, again = once(reference, found, "Recording")
    yield from again
    for row, name, *labels in zip(found.index, *(found[column].tolist() for column in columns), strict=True):
        given = tuple(label.strip() for label in labels if label.strip())
        place = paths.get(name, f"{name}.mat")
        yield Recording(place, name, given, table=str(reference), row=row, patient_known=False)


@source(("N", "A", "O", "~"), "multiclass")
def cinc2017(raw: Path) -> Iterator[Recording | Problem]:
    """PhysioNet/CinC Challenge 2017: one lead at 300 Hz, 9 to 61 s; normal, AF, other rhythm, too noisy.

    The labels of version 3 are used where they exist. No patient table is published.
    """
    paths = by_stem(raw, ".hea")
    choices = [raw / "REFERENCE-v3.csv", raw / "REFERENCE.csv", raw / "training2017" / "REFERENCE.csv"]
    reference = next((path for path in choices if path.exists()), choices[1])
    found = table(reference, ("record", "label"), names=["record", "label"], header=None)
    found, again = once(reference, found, "record")
    yield from again
    for row, name, label in zip(found.index, found["record"].tolist(), found["label"].tolist(), strict=True):
        place = paths.get(name, f"{name}.hea")
        yield Recording(place, name, (label.strip(),), table=str(reference), row=row, patient_known=False)


def dx_target(year: str) -> Target:
    """Return the scored classes of a challenge, by SNOMED CT code, abbreviation, and the words of the first headers."""
    by_code, column = codes("snomed", f"cinc{year}"), f"cinc{year}"
    by_name = {name: by_code[code] for code, name in codes("snomed", "name").items()}
    of = {**by_name, **codes("cpsc", column), **by_code}
    return Target(tuple(sorted(set(of.values()) - {""})), of=of, without="kept")


def _dx(raw: Path, year: str) -> Iterator[Recording | Problem]:
    for header in sorted(raw.rglob("*.hea")):
        locator, notes = header.relative_to(raw).as_posix(), comments(header)
        labels = tuple(word.strip() for word in (notes or {}).get("dx", "").split(",") if word.strip())
        if notes is not None and not labels:
            reason = f"{header}: its Dx is empty; this does not mean that the recording has none of the classes"
            yield Problem(locator, "index", reason)
            continue
        # the gains in 2020's headers contradict the samples: a unit is 1 uV, as the release of 2021 says
        scale = 1000.0 if year == "2020" else None
        about = about_of(notes or {})
        yield Recording(locator, header.stem, labels, units_per_mv=scale, patient_known=False, about=about)


@source(scored=dx_target("2020"))
def cinc2020(raw: Path) -> Iterator[Recording | Problem]:
    """PhysioNet/CinC Challenge 2020: several databases of 12 leads, SNOMED CT codes in the headers, no patients."""
    yield from _dx(raw, "2020")


@source(scored=dx_target("2021"))
def cinc2021(raw: Path) -> Iterator[Recording | Problem]:
    """PhysioNet/CinC Challenge 2021: several databases of 12 leads, SNOMED CT codes in the headers, no patients."""
    yield from _dx(raw, "2021")


# ------------------------------------------------------------------------------------------------ others


@cache
def _phrases(statement: str) -> tuple[str, ...]:
    """Split a statement that codes.csv does not list into what it joins: `sinus rhythm with PAC(s)` says two things."""
    statement = statement.strip(" .*-").lower()
    if not statement or statement in codes("mimic", "findings"):
        return (statement,) if statement else ()
    return tuple(re.split(r" +(?:with|and) +", statement))


@source(
    findings=target_of("mimic", "findings", unknown="counted"),
    unlabelled=Target((), of={}, without="kept", unknown="counted"),
)
def mimic_iv_ecg(raw: Path) -> Iterator[Recording | Problem]:
    """MIMIC-IV-ECG 1.0: 800,000 recordings of 12 leads at 500 Hz, 10 s, with the machine's statements.

    A statement counts if codes.csv lists it, or the phrases that it joins. A possible, probable or borderline finding
    does not count, but a probable rhythm does. Unknown statements are counted and not used. Recordings whose statements
    give no class are left out; the target `unlabelled`, which has no classes, keeps all.
    """
    path = raw / "record_list.csv"
    found = table(path, ("subject_id", "study_id", "path"))
    found, again = once(path, found, "study_id")
    yield from again
    columns = [f"report_{number}" for number in range(18)]
    measured = table(raw / "machine_measurements.csv", ("study_id", *columns), usecols=["study_id", *columns])
    reports = dict(zip(measured["study_id"], zip(*(measured[c] for c in columns), strict=True), strict=True))
    recordings = zip(found.index, found["subject_id"], found["study_id"], found["path"], strict=True)
    for row, subject, study, place in recordings:
        statements = tuple(dict.fromkeys(phrase for line in reports.get(study, ()) for phrase in _phrases(line)))
        yield Recording(f"{place}.hea", subject, statements, table=str(path), row=row)


# How people call the columns of unified_label_mapping.csv: in small letters, without spaces, hyphens, underscores.
FOLDER_COLUMNS = {
    "dataset": {"dataset"},
    "record": {"record"},
    "label": {"label"},
    "patient": {"patient", "patientid", "pid", "subject", "subjectid"},
    "fold": {"fold", "stratfold", "split", "set"},
}


@source(labels=Target(()), own_folds=True)
def folder(
    raw: Path, default_label: str = "", fs: float | None = None, units_per_mv: float | None = None
) -> Iterator[Recording | Problem]:
    """Any tree of recordings in any format with unified_label_mapping.csv: dataset, record, label.

    The table may name a record with either slash, without its suffix or its folder; `dataset` is a folder above it, or
    empty. Several rows for one record give it several labels; they must agree on its patient and fold, which the
    columns `patient` and `fold` give where they exist (also `patient_id`, `subject`, `strat_fold` and the like; a fold
    holds unless `data.split` is `random_rows`). Columns that are not used are named. Without the table every recording
    gets `default_label`, if one is given. `fs`: rate, and `units_per_mv`: scale of the stored values, 1000 for uV,
    of files that do not tell them, or tell wrong ones.
    """
    for name, value in (("fs", fs), ("units_per_mv", units_per_mv)):
        if value is not None and not 0 < value < float("inf"):
            raise Stop(f"data.arguments: {name} = {value}: must be positive and finite")
    path = raw / "unified_label_mapping.csv"
    paths = [p.relative_to(raw).as_posix() for p in readers.below(raw, recursive=True)]
    if not path.exists():
        if not default_label:
            one_label = """--data.arguments '{"default_label": "X"}'"""
            raise Stop(f"{path}: does not exist; write it, or give all one label: {one_label}")
        for p in paths:
            yield Recording(p, _stem(p), (default_label,), fs=fs, units_per_mv=units_per_mv, patient_known=False)
        return
    found, unused = _folder_table(path)
    if unused:
        yield Problem("", "table", f"{path}: columns that are not used: {', '.join(unused)}")
    for alike in _near_duplicates(found["label"]):
        yield Problem("", "table", f"{path}: labels that differ in case or blanks alone: {', '.join(alike)}")
    named: dict[str, list[dict[Any, Any]]] = {}
    tails = _tails(paths)
    for number, row in zip(found.index, found.to_dict("records"), strict=True):
        matches = _matches(row, tails)
        if len(matches) != 1:
            why = f"could be {', '.join(matches[:3])}" if matches else "is no recording here"
            name = row["record"] or "an empty name"
            yield Problem(row["record"], "index", f"{path}, row {number}: {name} {why}")
            continue
        named.setdefault(matches[0], []).append({**row, "row": number})
    without = sum(not rows[0].get("fold") for rows in named.values())
    if 0 < without < len(named):
        yield Problem("", "table", f"{path}: {without} of {len(named)} recordings have no fold: theirs are drawn")
    for p in paths:
        if p not in named:
            yield Problem(p, "index", f"{path}: has no row for {p}")
            continue
        rows = named[p]
        if contradiction := _contradiction(rows):
            yield Problem(p, "index", f"{path}: {contradiction}")
            continue
        labels = tuple(dict.fromkeys(row["label"] for row in rows if row["label"]))
        patient, fold = rows[0].get("patient", ""), rows[0].get("fold") or None
        place, known = (str(path), rows[0]["row"]), bool(patient)
        yield Recording(p, patient or _stem(p), labels, fold, None, units_per_mv, fs, *place, known)


def _folder_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read unified_label_mapping.csv with the columns of FOLDER_COLUMNS that it has; also name its other columns."""
    found = table(path, ()).apply(lambda cells: cells.str.strip())
    of: dict[str, str] = {}  # name -> column
    for column in found.columns:
        plain = re.sub(r"[\s_-]", "", column.lower())
        name = next((name for name, words in FOLDER_COLUMNS.items() if plain in words), None)
        if name is None:
            continue
        if name in ("patient", "fold"):
            found[column] = found[column].str.replace(FLOAT, r"\1", regex=True)
        first = of.setdefault(name, column)
        differ = found.index[found[first] != found[column]]
        if len(differ):
            where = f"columns {first} and {column} both give the {name} and differ in row {differ[0]}"
            cells = " and ".join(cell or "nothing" for cell in found.loc[differ[0], [first, column]])
            raise Stop(f"{path}: {where}: {cells}; leave one")
    if missing := [name for name in ("record", "label") if name not in of]:
        raise Stop(f"{path}: has no column {', '.join(missing)}; it has {', '.join(found.columns)}")
    used = found[list(of.values())].set_axis(list(of), axis=1)
    return used, [column for column in found.columns if column not in of.values()]


def _stem(path: str) -> str:
    """Return a path without its suffix; of a recording in a file of many, with its row."""
    file, row = readers.file_and_row(path)
    stem = file.with_suffix("").as_posix()
    return stem if row is None else f"{stem}#{row}"


def _tails(paths: list[str]) -> dict[str, list[str]]:
    """Return the paths by every end of theirs, with and without its suffix, in small letters."""
    tails: dict[str, list[str]] = {}
    for p in paths:
        parts = p.lower().split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for name in {tail, _stem(tail)}:
                tails.setdefault(name, []).append(p)
    return tails


def _matches(row: Mapping[Any, str], tails: dict[str, list[str]]) -> list[str]:
    """Return the paths that a row of the table can mean."""
    name = row["record"].replace("\\", "/").strip("/").removesuffix(".dat").lower()
    below = row.get("dataset", "").replace("\\", "/").strip("/").lower()
    for each in (name, FLOAT.sub(r"\1", name)):
        matches = [p for p in tails.get(each, []) if not below or f"/{p.lower()}".startswith(f"/{below}/")]
        if matches := matches or tails.get(f"{below}/{each}", []):
            return matches
    return []


def _near_duplicates(labels: Iterable[str]) -> list[list[str]]:
    """List the labels that are the same but for case and blanks, as AF and af."""
    alike: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        alike.setdefault("".join(label.split()).casefold(), []).append(label)
    return [each for each in alike.values() if len(each) > 1]


def _contradiction(rows: list[dict[Any, Any]]) -> str:
    """Say which rows of one recording differ in its patient or fold, if any do."""
    for name in ("patient", "fold"):
        for row in rows[1:]:
            if row.get(name) != rows[0].get(name):
                said = " and ".join(f"{each[name] or 'nothing'} (row {each['row']})" for each in (rows[0], row))
                return f"{rows[0]['record']} has the {name} {said}"
    return ""


@source(CODE_CLASSES)
def demo(raw: Path) -> Iterator[Recording]:
    """The simulated recordings of simulate.py; a recording with none of the classes is normal."""
    with (raw / "records.csv").open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            labels = tuple(name for name in CODE_CLASSES if int(row[name]))
            yield Recording(row["record"] + ".hea", row["patient"], labels, about=about_of(row))

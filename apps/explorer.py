"""Look at recordings, and at what a network finds in them, in a browser.

    pip install -e ".[apps]"
    streamlit run apps/explorer.py
    ECG_RUN_DIR=runs/mitdb streamlit run apps/explorer.py       # this run, whatever else there is in runs/

A record is uploaded (`.hea` with its `.dat`, `.mat`, CSV with lead1 to lead12 and perhaps time, or any other format
that readers.py reads) or is a simulated sample of a class. The run is, in this order:

1. the one that `ECG_RUN_DIR` names: a run folder, a checkpoint file or `latest`; no other can then be chosen;
2. the one that is chosen in the side bar: a folder in runs/, the newest first, or the bundled model of beats;
3. unless one is chosen, that which infer.py takes: the newest run that fits the record, else the bundled model.

Of a run folder the weights are the best by the validation metric (best.pt) unless the best by the validation loss
(best-loss.pt) or the latest (last.pt) are chosen.
Not a medical device: for research and teaching only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

try:
    import streamlit as st
except ImportError:
    sys.exit('error: apps/explorer.py needs streamlit, which is not installed: pip install -e ".[apps]"')

import attributions
import bundle
import config
import infer
import pqrst
import readers
import runs
import script
import sheet
import simulate
from bundle import Bundle
from config import Settings
from formats import TELL_RATE, TELL_UNIT
from prediction import Prediction
from rhythm import clock
from script import Stop

Files = tuple[tuple[str, bytes], ...]  # name and content

RUNS = Path("runs")
AS_INFER = "chosen for the record"
BUNDLED = "bundled model of beats"
WEIGHTS = {"best by metric": runs.BEST, "best by loss": runs.BEST_LOSS, "latest": runs.LAST}
HOLTER = REPOSITORY / "examples" / "holter.hea"
SAMPLES = {
    "normal": "normal",
    "1dAVb": "1dAVb, first-degree AV block",
    "RBBB": "RBBB, right bundle branch block",
    "LBBB": "LBBB, left bundle branch block",
    "SB": "SB, sinus bradycardia",
    "AF": "AF, atrial fibrillation",
    "ST": "ST, sinus tachycardia",
    HOLTER.stem: "two leads for two minutes",
}
SPEEDS, GAINS = (25, 50), (5, 10, 20)  # mm/s, mm/mV
MAX_LEADS = 3  # of a strip
NOTICE = "**Not a medical device.** For research and teaching only; nothing shown here is a diagnosis."
UPLOAD = "a .hea with the files that it names, a .mat, a CSV with lead1 to lead12 in mV and perhaps time, or another"
LESS_MARGIN = "<style>.stMainBlockContainer {padding: 3.75rem 2rem 1rem} .stSidebar h2 {padding-top: 0}</style>"
BARS = {
    "present": st.column_config.TextColumn("finding", width=70),
    "share": st.column_config.ProgressColumn(width=150, format="percent", min_value=0, max_value=1),
    "probability": st.column_config.ProgressColumn(width=100, format="%.3f", min_value=0, max_value=1),
    "threshold": st.column_config.NumberColumn(width=75, format="%.3f"),
}


class Drawing(NamedTuple):
    """How a sheet is drawn."""

    layout: str | None  # None: a line for each lead
    speed: float  # mm/s
    gain: float  # mm/mV


class Shown(NamedTuple):
    """A record, the network that was asked, and its answer."""

    record: pqrst.Record
    trained: Bundle
    prediction: Prediction
    key: str  # tells this record from others


# ------------------------------------------------------------------------------------------------ without a browser


def stored(files: Files, folder: Path) -> Path:
    """Write uploaded files under their bare names, and return the path of the recording that they are.

    Raises
    ------
    Stop
        No file, a name that is none, two files of one name, or not exactly one recording.
    """
    names = [name.replace("\\", "/").rpartition("/")[2] for name, _ in files]
    for name, (given, _) in zip(names, files, strict=True):
        if name in ("", ".", "..") or not name.isprintable():
            raise Stop(f"{given!r} is no name of a file; rename it and upload it again")
        if names.count(name) > 1:
            raise Stop(f"{name}: two files have this name; upload one of them")
    headers = [name for name in names if name.lower().endswith(".hea")]
    recordings = headers or names
    if len(recordings) != 1:
        found = f"{len(recordings)} recordings were uploaded ({', '.join(recordings)})" if names else "nothing uploaded"
        raise Stop(f"{found}; upload one: a .hea with the files that it names, a .mat, a CSV, or another single file")
    for name, (_, content) in zip(names, files, strict=True):
        (folder / name).write_bytes(content)
    return folder / recordings[0]


def read(files: Files, fs: float | None = None, units_per_mv: float | None = None) -> pqrst.Record:
    """Read uploaded files; what is wrong with them is a Stop that names a file as it was uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return readers.read(stored(files, Path(folder)), units_per_mv, fs)
        except (ValueError, OSError) as error:
            text = bare(script.one_line(error), folder)
            if isinstance(error, FileNotFoundError) and ".hea" in text:
                text += "; upload the header together with the files that it names"
            raise Stop(text) from error


def bare(text: str, folder: str | Path) -> str:
    """Take out of a message the temporary folder, and the options of a command line."""
    text = text.replace(f"{folder}/", "")
    text = text.replace(TELL_RATE, "give the sampling rate in the side bar")
    return text.replace(TELL_UNIT, "give the units per mV in the side bar")


def samples() -> dict[str, Files]:
    """Return the simulated samples: the record of each class that `simulate.py --samples` writes, and two minutes."""
    with tempfile.TemporaryDirectory() as folder:
        headers = [Path(folder) / f"{name}.hea" for name in simulate.write_samples(Path(folder))]
        paths = {header.stem: (header, header.with_suffix(".dat")) for header in (*headers, HOLTER)}
        return {name: tuple((path.name, path.read_bytes()) for path in pair) for name, pair in paths.items()}


def runs_to_choose(named: str | None, root: Path = RUNS) -> dict[str, str | None]:
    """Return the runs that may be chosen, in the order of preference, and what `find_bundle` takes for each."""
    if named:
        return {f"{named} (ECG_RUN_DIR)": named}
    folders = {str(folder): str(folder) for folder in runs.newest(root)}
    return {AS_INFER: None, **folders, BUNDLED: str(infer.PRETRAINED)}


def weights_of(run: str | Path) -> dict[str, Path]:
    """Return the checkpoints of a run folder; of a checkpoint file none, as there is no choice."""
    return {label: Path(run) / name for label, name in WEIGHTS.items() if (Path(run) / name).is_file()}


def predict(record: pqrst.Record, trained: Bundle, run: str, settings: Settings) -> Prediction:
    """Predict with the names of files as they were uploaded."""
    found = infer.predict_record(record, trained, run, settings.inference.leads, settings.inference.batch_size)
    path = Path(record.name)
    return replace(found, record=path.name, warnings=tuple(bare(text, path.parent) for text in found.warnings))


def findings_of(prediction: Prediction) -> pd.DataFrame:
    """Return a table of the findings, or of the beats of each class."""
    if prediction.samples is not None:
        n = max(1, len(prediction.samples))
        counts = prediction.counts.items()
        return pd.DataFrame([{"class": name, "beats": k, "share": k / n} for name, k in counts])
    table = pd.DataFrame(prediction.rows())
    table["present"] = ["present" if present else "absent" for present in table["present"]]
    shown = ["class", "present", "probability", *(["threshold"] if prediction.thresholds else [])]
    return table[shown]


def layouts_of(record: pqrst.Record) -> list[str | None]:
    """Return the layouts of a sheet that the record has the leads for."""
    try:
        sheet.rows_of(record, "12x1")
    except ValueError:
        return [None]
    return list(sheet.LAYOUTS)


def strip_of(record: pqrst.Record, leads: Sequence[str], start_s: float) -> list[sheet.Row]:
    """Lay out ten seconds of some leads."""
    end_s = min(start_s + sheet.LINE_S, record.signal.shape[1] / record.fs)
    pieces = [sheet.Piece(list(record.leads).index(lead), start_s, end_s - start_s) for lead in leads]
    caption = f"{clock(start_s)} to {clock(end_s)}"
    return [sheet.Row([piece], caption if not k else "") for k, piece in enumerate(pieces)]


def text_of_moment(time_s: float, text: str) -> str:
    """Return a moment with its time in front, once."""
    return f"{clock(time_s)} {text.removesuffix(f' at {clock(time_s)}')}"


def latest_start_s(record: pqrst.Record) -> int:
    """Return the last whole second at which a strip may begin."""
    return max(0, int(-(-record.signal.shape[1] // record.fs) - sheet.LINE_S))


def picture(shown: Shown, rows: Sequence[sheet.Row], drawing: Drawing, kind: str = "png", **more: Any) -> bytes:
    """Draw a sheet of the record and return the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sheet.{kind}"
        title, marks = shown.prediction.title(), infer.marks_of(shown.prediction)
        sheet.save_sheet(path, shown.record, title, rows, marks, drawing.speed, drawing.gain, **more)
        return path.read_bytes()


def per_lead(found: attributions.Attribution) -> pd.DataFrame:
    """Return a table of the leads: what each adds, and its share."""
    columns = {"log odds": found.per_lead, "share": found.share}
    return pd.DataFrame(columns, index=pd.Index(found.leads, name="lead"))


# ------------------------------------------------------------------------------------------------ kept between clicks


@st.cache_resource(max_entries=4, show_spinner="loading the network …")
def _loaded(path: str, mtime_ns: int) -> Bundle:
    """Read a checkpoint once, and again when it has changed."""
    return bundle.load(Path(path))


def load(path: Path) -> Bundle:
    """Read a checkpoint, or return it where it has been read."""
    return _loaded(str(path), path.stat().st_mtime_ns) if path.is_file() else bundle.load(path)


_samples = st.cache_resource(show_spinner="simulating the samples …")(samples)
_read = st.cache_resource(max_entries=4, show_spinner="reading the record …")(read)


@st.cache_resource(max_entries=4, show_spinner="asking the network …")
def _ask(key: tuple[str, str, int], _record: pqrst.Record, _trained: Bundle, _settings: Settings) -> Shown:
    """Predict once; `key`: the record's, the run's name, and the id of the bundle, which the answer keeps alive."""
    return Shown(_record, _trained, predict(_record, _trained, key[1], _settings), " ".join(key[:2]))


@st.cache_resource(max_entries=16, show_spinner="explaining …")
def _explain(key: tuple[Any, ...], _shown: Shown) -> attributions.Attribution:
    import explain

    *_, name, method, row = key
    return explain.explain(_shown.record, _shown.trained, name, method, row)


# ------------------------------------------------------------------------------------------------ the side bar


def choose_record(settings: Settings) -> tuple[pqrst.Record, str] | None:
    """Let a sample be chosen or a record uploaded; return it with a key, or None where nothing is uploaded yet."""
    st.header("Record")
    given, fs, units = settings.inference, None, None
    ways = ["simulated sample", "upload"]
    if st.radio("record", ways, key="source", horizontal=True, label_visibility="collapsed") == ways[0]:
        files = _samples()[st.selectbox("Sample", list(SAMPLES), format_func=SAMPLES.__getitem__, key="sample")]
    else:
        uploaded = st.file_uploader("Files of one record", accept_multiple_files=True, key="files", help=UPLOAD)
        files = tuple((file.name, file.getvalue()) for file in uploaded)
        said = "as the file says"
        fs = st.number_input("Sampling rate, Hz", 1.0, value=given.fs, placeholder=said, key="fs")
        units = st.number_input("Units per mV", 1e-6, value=given.units_per_mv, placeholder=said, key="units")
    if not files:
        return None
    digest = hashlib.sha256(repr((files, fs, units)).encode()).hexdigest()
    return _read(files, fs, units), digest


def choose_network(settings: Settings, record: pqrst.Record) -> tuple[str, Bundle]:
    """Let a run and its weights be chosen."""
    st.header("Run")
    choices = runs_to_choose(settings.run_dir)
    label = st.selectbox("Run", list(choices), disabled=len(choices) == 1, key="run")
    run = choices[label]
    name, trained = infer.find_bundle(run, record if run is None else None, RUNS, load)
    weights = weights_of(name)
    if weights:
        path = weights[st.radio("Weights", list(weights), key="weights")]
        if path.name != runs.BEST:
            return str(path), load(path)
    return name, trained


def choose_drawing(record: pqrst.Record) -> Drawing:
    """Let layout, speed and gain be chosen."""
    st.header("Sheet")
    layouts = layouts_of(record)
    layout = st.selectbox("Layout", layouts, key="layout") if len(layouts) > 1 else None
    left, right = st.columns(2)
    speed = left.selectbox("mm/s", SPEEDS, SPEEDS.index(int(sheet.SPEED)), key="speed")
    gain = right.selectbox("mm/mV", GAINS, GAINS.index(int(sheet.GAIN)), key="gain")
    return Drawing(layout, float(speed), float(gain))


# ------------------------------------------------------------------------------------------------ the pages


def show_findings(shown: Shown, drawing: Drawing) -> None:
    """Show what was found beside the sheet."""
    prediction = shown.prediction
    rows = sheet.rows_of(shown.record, drawing.layout)
    left, right = st.columns([4, 9])
    with left:
        st.dataframe(findings_of(prediction), hide_index=True, column_config=BARS)
        if prediction.samples is not None:
            st.text("\n".join(prediction.rhythm().to_text()[1:]))
        for warning in prediction.warnings:
            st.warning(warning)
        stem = Path(prediction.record).stem
        pdf = partial(picture, shown, rows, drawing, "pdf")  # drawn when it is asked for
        json_side, pdf_side = st.columns(2)
        json_side.download_button("JSON", prediction.to_json(1), f"{stem}.json", "application/json", width="stretch")
        pdf_side.download_button("PDF of the sheet", pdf, f"{stem}.pdf", "application/pdf", width="stretch")
    right.image(picture(shown, rows, drawing), width="stretch")


def show_importance(shown: Shown, drawing: Drawing) -> None:
    """Show which leads, and where in them, speak for a class."""
    prediction = shown.prediction
    left, right = st.columns([4, 9])
    with left:
        row = None
        if prediction.samples is not None:
            if not len(prediction.samples):
                st.info("no beats were found, so there is nothing to explain")
                return
            row = int(st.number_input("Beat", 1, len(prediction.samples), key=f"beat {shown.key}")) - 1
        scores = prediction.scores[row or 0]
        name = st.selectbox("Class", prediction.classes, int(scores.argmax()), key=f"class {shown.key} {row}")
        method = st.selectbox("Method", attributions.METHODS, key="method")
        found = _explain((shown.key, prediction.run, name, method, row), shown)
        st.bar_chart(per_lead(found), y="log odds", horizontal=True, sort=False)
        st.caption(
            f"log odds of {name}: {found.output:.2f}, of a flat line {found.baseline:.2f}; "
            f"the attributions miss {100 * found.error:.1f} % of the difference"
        )
    rows = sheet.rows_of(shown.record, drawing.layout)
    if row is not None:
        start_s = min(max(0.0, found.start_s - sheet.LINE_S / 2), float(latest_start_s(shown.record)))
        rows = strip_of(shown.record, shown.record.leads[:MAX_LEADS], start_s)
    right.image(picture(shown, rows, drawing, shade=found), width="stretch")


def show_beats(shown: Shown, drawing: Drawing) -> None:
    """Show ten seconds of the record with its beats, to scroll through."""
    prediction, record = shown.prediction, shown.record
    latest, key = latest_start_s(record), f"start {shown.key}"
    moments = {text_of_moment(sample / record.fs, text): sample / record.fs for sample, text in prediction.moments()}

    def go(start_s: float) -> None:
        st.session_state[key] = min(max(0, int(start_s)), latest)

    def jump() -> None:
        go(moments.get(st.session_state["moment"], 0) - sheet.LINE_S / 2)

    st.session_state.setdefault(key, 0)
    here = st.session_state[key]
    columns = st.columns([4, 3, 1, 4, 1], vertical_alignment="bottom")
    columns[0].selectbox("Jump to", list(moments), None, key="moment", on_change=jump, placeholder="a moment")
    leads = columns[1].multiselect("Leads", record.leads, list(record.leads[:MAX_LEADS]), max_selections=MAX_LEADS)
    columns[2].button("◀ 10 s", on_click=go, args=(here - sheet.LINE_S,), disabled=here == 0, width="stretch")
    start_s = columns[3].slider("Begin of the strip, s", 0, latest, key=key) if latest else 0
    columns[4].button("10 s ▶", on_click=go, args=(here + sheet.LINE_S,), disabled=here == latest, width="stretch")
    if leads:
        st.image(picture(shown, strip_of(record, leads, start_s), drawing), width="stretch")
    left, right = st.columns([4, 9])
    left.dataframe(findings_of(prediction), hide_index=True, column_config=BARS)
    right.text(prediction.to_text())


def main() -> None:
    st.set_page_config("ECG explorer", layout="wide")
    st.html(LESS_MARGIN)
    left, right = st.columns([4, 9], vertical_alignment="center")
    left.title("ECG explorer")
    right.warning(NOTICE)
    try:
        settings, _ = config.load(argparse.ArgumentParser(), [])
        with st.sidebar:
            chosen = choose_record(settings)
            if chosen is None:
                st.stop()
            record, digest = chosen
            name, trained = choose_network(settings, record)
            drawing = choose_drawing(record)
        shown = _ask((digest, name, id(trained)), record, trained, settings)
        prediction = shown.prediction
        made = f", trained on {trained.origin.data} on {trained.origin.date}" if trained.origin.data else ""
        seconds = f"{prediction.duration_s:,.1f} s at {prediction.fs:g} Hz"
        st.markdown(
            f"**{prediction.record}**: {seconds}, leads {', '.join(record.leads)}. "
            f"Model **{name}** ({trained.name}){made}."
        )
        pages = {"Findings": show_findings, "Importance": show_importance}
        if prediction.samples is not None:
            pages["Beats"] = show_beats
        page = st.radio("page", list(pages), key="page", horizontal=True, label_visibility="collapsed")
        pages[page](shown, drawing)
    except (Stop, ValueError, OSError, RuntimeError) as error:
        st.error(script.one_line(error))


if __name__ == "__main__":
    main()

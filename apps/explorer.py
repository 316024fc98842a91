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
import secrets
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

try:
    import streamlit as st
except ImportError:
    print('error: apps/explorer.py needs streamlit, which is not installed: pip install -e ".[apps]"', file=sys.stderr)
    sys.exit(2)

import attributions
import bundle
import config
import explain
import infer
import pqrst
import runs
import script
import sheet
import simulate
from apps import views
from apps.files import KINDS, Files, bare, read
from apps.views import Drawing, Shown, literal
from bundle import Bundle
from config import Settings
from rhythm import clock
from script import Stop

RUNS = Path("runs")
AS_INFER = "newest that fits the record"
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
SIDES = (4, 9)  # widths of table and sheet
SPEEDS, GAINS = (25, 50), (5, 10, 20)  # mm/s, mm/mV
NOTICE = "**Not a medical device.** For research and teaching only; nothing shown here is a diagnosis."
WAYS = ("simulated sample", "upload")
LESS_MARGIN = "<style>.stMainBlockContainer {padding: 3.75rem 2rem 1rem} .stSidebar h2 {padding-top: 0}</style>"
BARS = {
    "present": st.column_config.TextColumn("finding", width=70),
    "share": st.column_config.ProgressColumn(width=150, format="percent", min_value=0, max_value=1),
    "probability": st.column_config.ProgressColumn(width=100, format="%.3f", min_value=0, max_value=1),
    "threshold": st.column_config.NumberColumn(width=75, format="%.3f"),
}


# ------------------------------------------------------------------------------------------------ without a browser


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
    return Shown(_record, _trained, views.predict(_record, _trained, key[1], _settings), secrets.token_hex())


@st.cache_resource(max_entries=2, show_spinner="preparing …")
def _feed(key: str, _shown: Shown, leads: str) -> infer.Fed:
    return infer.feed(_shown.record, _shown.trained, leads)


@st.cache_resource(max_entries=16, show_spinner="explaining …")
def _explain(key: tuple[Any, ...], _fed: infer.Fed, _shown: Shown) -> attributions.Attribution:
    return views.explained(_fed, _shown, *key[1:])


# ------------------------------------------------------------------------------------------------ the side bar


def choose_record(settings: Settings) -> tuple[pqrst.Record, str] | None:
    """Let a sample be chosen or a record uploaded; return it with a key, or None where nothing is uploaded yet."""
    st.header("Record")
    given, fs, units = settings.inference, None, None
    if st.radio("record", WAYS, key="source", horizontal=True, label_visibility="collapsed") == WAYS[0]:
        files = _samples()[st.selectbox("Sample", list(SAMPLES), format_func=SAMPLES.__getitem__, key="sample")]
    else:
        uploaded = st.file_uploader("Files of one record", accept_multiple_files=True, key="files")
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
    return infer.PRETRAINED.name if name == str(infer.PRETRAINED) else name, trained


def choose_drawing(record: pqrst.Record) -> Drawing:
    """Let layout, speed and gain be chosen."""
    st.header("Sheet")
    layouts = views.layouts_of(record)
    layout = st.selectbox("Layout", layouts, key="layout") if len(layouts) > 1 else None
    left, right = st.columns(2)
    speed = left.selectbox("mm/s", SPEEDS, SPEEDS.index(int(sheet.SPEED)), key="speed")
    gain = right.selectbox("mm/mV", GAINS, GAINS.index(int(sheet.GAIN)), key="gain")
    return Drawing(layout, float(speed), float(gain))


# ------------------------------------------------------------------------------------------------ the pages


def show_findings(shown: Shown, drawing: Drawing, _: Settings) -> None:
    """Show what was found beside the sheet."""
    prediction = shown.prediction
    rows = sheet.rows_of(shown.record, drawing.layout)
    left, right = st.columns(SIDES)
    with left:
        st.dataframe(views.findings_of(prediction), hide_index=True, column_config=BARS)
        st.caption(views.told_of(shown.trained))
        for warning in prediction.warnings:
            st.warning(literal(warning))
        stem = Path(prediction.record).stem
        pdf = partial(views.picture, shown, rows, drawing, "pdf")  # drawn when it is asked for
        json_side, pdf_side = st.columns(2)
        json_side.download_button("JSON", prediction.to_json(1), f"{stem}.json", "application/json", width="stretch")
        pdf_side.download_button("PDF", pdf, f"{stem}.pdf", "application/pdf", width="stretch")
    right.image(views.picture(shown, rows, drawing), width="stretch")
    if prediction.samples is not None:
        right.text("\n".join(prediction.rhythm().to_text()))


def show_importance(shown: Shown, drawing: Drawing, settings: Settings) -> None:
    """Show which leads, and where in them, speak for a class."""
    prediction, record, row = shown.prediction, shown.record, None
    left, right = st.columns(SIDES)
    with left:
        if prediction.samples is not None:
            if not len(prediction.samples):
                st.info("There are no beats, so nothing to explain.")
                return
            doubtful = prediction.least_certain()[0] + 1
            row = int(st.number_input("Beat", 1, len(prediction.samples), doubtful, key=f"beat {shown.key}")) - 1
            beat = prediction.rows()[row]
            st.caption(f"Beat at {clock(beat['time_s'])}: {literal(beat['class'])}, {beat['probability']:.2f}")
        likely = int(prediction.scores[row or 0].argmax())
        name = st.selectbox("Class", prediction.classes, likely, key=f"class {shown.key} {row}")
        method = st.selectbox("Method", views.methods_of(prediction.run), key=f"method {prediction.run}")
        fed = _feed(shown.key, shown, settings.inference.leads)
        found = _explain((shown.key, name, method, row), fed, shown)
        st.altair_chart(views.bars_of(found))
        st.caption(literal(views.told_of_row(found)))
    end_s = found.start_s + found.values.shape[1] / found.fs
    rows = sheet.rows_of(record, drawing.layout)
    if row is not None or end_s > sheet.LINE_S + 0.1:
        rows = views.strip_of(record, range(len(record.leads)), (found.start_s + end_s - sheet.LINE_S) / 2)
    right.image(views.picture(shown, rows, drawing, shades=explain.shades_of(found, fed)), width="stretch")
    seen = (
        "Green speaks for {}, purple against it" if found.values.any() else "For {} no sample counts, only numbers do"
    )
    right.caption(f"{seen.format(literal(name))}. It shows what the network looks at, not that this is right.")


def show_beats(shown: Shown, drawing: Drawing, _: Settings) -> None:
    """Show ten seconds of the record with its beats, to scroll through."""
    prediction, record = shown.prediction, shown.record
    latest, key = views.latest_start_s(record), f"start {shown.key}"
    moments = {
        views.text_of_moment(sample / record.fs, text): sample / record.fs for sample, text in prediction.moments()
    }

    def go(start_s: float) -> None:
        st.session_state[key] = min(max(0, int(start_s)), latest)

    def jump() -> None:
        go(moments.get(st.session_state[f"moment {shown.key}"], 0) - sheet.LINE_S / 2)

    st.session_state.setdefault(key, 0)
    here = st.session_state[key]
    columns = st.columns([4, 3, 1, 4, 1], vertical_alignment="bottom")
    columns[0].selectbox(
        "Jump to", list(moments), None, key=f"moment {shown.key}", on_change=jump, placeholder="a moment worth a look"
    )
    used = views.leads_used(record, shown.trained)
    places, named = range(len(record.leads)), views.names_of(record).__getitem__
    leads = columns[1].multiselect(
        "Leads", places, used, named, max_selections=views.MAX_LEADS, key=f"leads {shown.key}"
    )
    start_s = 0
    if latest:
        back, on = (here - sheet.LINE_S,), (here + sheet.LINE_S,)
        columns[2].button("◀ 10 s", on_click=go, args=back, disabled=here == 0, width="stretch")
        start_s = columns[3].slider("Begin of the strip, s", 0, latest, key=key)
        columns[4].button("10 s ▶", on_click=go, args=on, disabled=here == latest, width="stretch")
    if leads:
        st.image(views.picture(shown, views.strip_of(record, leads, start_s), drawing), width="stretch")
    left, right = st.columns(SIDES)
    left.dataframe(views.findings_of(prediction), hide_index=True, column_config=BARS)
    right.text(prediction.to_text())


def main() -> None:
    st.set_page_config("ECG explorer", layout="wide")
    st.html(LESS_MARGIN)
    left, right = st.columns(SIDES, vertical_alignment="center")
    left.header("ECG explorer")
    right.warning(NOTICE)
    folder = Path()
    try:
        settings, _ = config.load(argparse.ArgumentParser(), [])
        with st.sidebar:
            chosen = choose_record(settings)
        if chosen is None:
            st.info(f"Upload {KINDS}.")
            return
        with st.sidebar:
            record, digest = chosen
            folder = Path(record.name).parent  # which messages name, and which is gone
            name, trained = choose_network(settings, record)
            drawing = choose_drawing(record)
        shown = _ask((digest, name, id(trained)), record, trained, settings)
        prediction = shown.prediction
        made = f", trained on {trained.origin.data} on {trained.origin.date}" if trained.origin.data else ""
        seconds = f"{prediction.duration_s:,.1f} s at {prediction.fs:g} Hz"
        leads = literal(", ".join(record.leads))
        st.markdown(
            f"**{literal(prediction.record)}**: {seconds}, leads {leads}. "
            f"Model **{literal(name)}** ({literal(trained.name + made)})."
        )
        pages = {"Findings": show_findings, "Importance": show_importance}
        if prediction.samples is not None:
            pages["Beats"] = show_beats
        page = st.radio("page", list(pages), key="page", horizontal=True, label_visibility="collapsed")
        pages[page](shown, drawing, settings)
    except (Stop, ValueError, OSError, RuntimeError) as error:
        st.error(literal(bare(script.one_line(error), folder)))
        if st.session_state.get("source") == WAYS[1]:
            st.info(f"Upload {KINDS}.")


if __name__ == "__main__":
    main()

"""The ECG sheet: millimetres measured in the file, each lead once, texts that do not overlap."""

import re
import tracemalloc
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.image import imread
from test_plots import LONG, assert_apart, assert_drawn, drawn

import pqrst
import sheet
from figures import class_style
from recipe import TWELVE_LEADS

FS = 250.0


def recording(n_leads, seconds, names=None):
    """A record with a spike each 0.8 s."""
    time_s = np.arange(round(seconds * FS)) / FS
    signal = np.exp(-(((time_s % 0.8 - 0.4) / 0.02) ** 2)) * np.linspace(0.3, 1.5, n_leads)[:, None]
    return pqrst.Record(signal.astype(np.float32), FS, list(names or (f"V{k + 1}" for k in range(n_leads))))


def twelve(seconds=10):
    return recording(12, seconds, TWELVE_LEADS)


def paths_of(svg):
    """Every line of an SVG by its group, in millimetres from the left and the top: {id: [(N, 2), ...]}."""
    groups = {}
    for group in ElementTree.parse(svg).getroot().iter("{http://www.w3.org/2000/svg}g"):
        for path in group.findall("{http://www.w3.org/2000/svg}path"):
            numbers = re.findall(r"[ML] (\S+) (\S+)", path.get("d"))
            groups.setdefault(group.get("id"), []).append(np.array(numbers, float) * 25.4 / 72)
    return groups


def size_of(svg):
    root = ElementTree.parse(svg).getroot()
    return [float(root.get(side).removesuffix("pt")) * 25.4 / 72 for side in ("width", "height")]


def test_a_name_of_control_characters_leaves_the_svg_readable(tmp_path):
    record = pqrst.Record(np.zeros((1, 2500)), 250, ["I\x08\x1b"], ["mV"], "a\x00b")
    sheet.save_sheet(tmp_path / "s.svg", record, "title\x07", sheet.rows_of(record))
    ElementTree.parse(tmp_path / "s.svg")


# ------------------------------------------------------------------------------------------------------- millimetres


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 5.0), (12.5, 20.0)])
def test_the_calibration_pulse_is_1_mv_for_200_ms_to_a_hundredth_of_a_millimetre(tmp_path, speed, gain):
    sheet.save_sheet(tmp_path / "s.svg", twelve(), "title", sheet.rows_of(twelve()), speed=speed, gain=gain)
    pulses = paths_of(tmp_path / "s.svg")["calibration"]
    assert len(pulses) == 4, "one for each line"
    for pulse in pulses:
        assert np.ptp(pulse[:, 1]) == pytest.approx(gain, abs=0.01)
        assert pulse[3, 0] - pulse[2, 0] == pytest.approx(0.2 * speed, abs=0.01)


@pytest.mark.parametrize(("speed", "gain"), [(5.0, 10.0), (12.5, 40.0), (25.0, 10.0), (50.0, 20.0), (200.0, 200.0)])
def test_a_pulse_stands_before_its_lead_and_within_its_line_at_any_scale(tmp_path, speed, gain):
    record = twelve()
    record.signal[:] *= 0.1  # lower than the pulse
    sheet.save_sheet(tmp_path / "s.svg", record, "title", sheet.rows_of(record, "12x1"), speed=speed, gain=gain)
    groups = paths_of(tmp_path / "s.svg")
    width, height = size_of(tmp_path / "s.svg")
    above = sheet.TITLE_ROOM
    for pulse, lead in zip(groups["calibration"], (groups[f"lead {name}"][0] for name in TWELVE_LEADS), strict=True):
        assert pulse[:, 0].min() > 0 and pulse[:, 0].max() < lead[:, 0].min()
        assert above < pulse[:, 1].min(), "the line above ends there"
        above = lead[:, 1].max()
        assert above < height and lead[:, 0].max() < width


@pytest.mark.parametrize("speed", [5.0, 12.5])
def test_no_text_of_a_slow_sheet_leaves_it(tmp_path, monkeypatch, speed):
    record = recording(12, 60, TWELVE_LEADS)
    title = ", ".join(f"{LONG} {k} 0.99" for k in range(10))
    beats = [sheet.Mark(2000 * k, k, f"{k} {LONG}") for k in range(5)]

    def draw(path):
        sheet.save_sheet(path, record, title, sheet.rows_of(record, "12x1"), beats, speed=speed)

    assert_apart(*drawn(monkeypatch, draw, tmp_path / "s.png"))


def test_a_wave_measures_what_it_is(tmp_path):
    """A triangle of 1.5 mV and 400 ms in lead II is 15 mm high, and 5 mm wide at half of it."""
    record = recording(1, 10, ["II"])
    record.signal[:] = 0.25
    record.signal[0, 1000:1050] += np.linspace(0, 1.5, 50)
    record.signal[0, 1050:1100] += np.linspace(1.5, 0, 50)
    sheet.save_sheet(tmp_path / "s.svg", record, "title", sheet.rows_of(record))
    (trace,) = paths_of(tmp_path / "s.svg")["lead II"]
    assert np.ptp(trace[:, 1]) == pytest.approx(15, abs=0.05)
    place = np.linspace(trace[0, 0], trace[-1, 0], 100_000)
    half = np.interp(place, *trace.T) < trace[:, 1].max() - 7.5  # y goes down
    assert half.mean() * (trace[-1, 0] - trace[0, 0]) == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_pictures_and_pages_have_the_size_of_the_sheet(tmp_path, kind):
    for suffix in ("svg", kind):
        sheet.save_sheet(tmp_path / f"s.{suffix}", twelve(), "title", sheet.rows_of(twelve()))
    expected = size_of(tmp_path / "s.svg")
    if kind == "png":
        height, width = imread(tmp_path / "s.png").shape[:2]
        found = np.array([width, height]) * 25.4 / 150
        np.testing.assert_allclose(found, expected, atol=25.4 / 150)
    else:
        box = re.search(rb"/MediaBox \[ ?0 0 (\S+) (\S+) ?\]", (tmp_path / "s.pdf").read_bytes())
        np.testing.assert_allclose(np.array(box.groups(), float) * 25.4 / 72, expected, atol=0.01)


def test_a_signal_beyond_its_line_is_cut_off_and_a_gap_stays_open(tmp_path, monkeypatch):
    record = recording(2, 10, ["I", "II"])
    record.signal[0, 500] = 1000
    record.signal[1, 1000:1500] = np.nan
    figure, _ = drawn_sheet(monkeypatch, tmp_path, record, sheet.rows_of(record))
    first, second = (line for line in figure.axes[0].lines if (line.get_gid() or "").startswith("lead"))
    low, high = figure.axes[0].transData.inverted().transform(first.get_clip_box().get_points())[:, 1]
    assert 20 <= high - low <= 70 < first.get_ydata().max()  # mm
    assert np.isnan(second.get_ydata()).sum() == 500
    assert figure.get_size_inches()[1] * 25.4 < 200


# ------------------------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize(("layout", "seconds", "strips"), [("3x4", 2.5, 1), ("6x2", 5, 0), ("12x1", 10, 0)])
def test_each_lead_is_drawn_once_and_time_goes_on_from_column_to_column(layout, seconds, strips):
    rows = sheet.rows_of(twelve(), layout)
    pieces = [piece for row in rows[: len(rows) - strips] for piece in row.pieces]
    assert sorted(piece.lead for piece in pieces) == list(range(12))
    assert {piece.seconds for piece in pieces} == {seconds}
    for row in rows:
        assert [piece.start_s for piece in row.pieces] == [k * row.pieces[0].seconds for k in range(len(row.pieces))]
    by_column = [row.pieces[0].lead for row in rows[: len(rows) - strips]]
    assert by_column == list(range(len(by_column))), "leads go down the columns"
    assert [rows[-1].pieces[0].lead, len(rows[-1].pieces)] == [1, 1] or not strips  # lead II


@pytest.mark.parametrize("seconds", [1, 3, 5, 7.3])
@pytest.mark.parametrize("layout", sheet.LAYOUTS)
def test_of_a_short_record_no_lead_is_left_blank(layout, seconds):
    record = twelve(seconds)
    for piece in (piece for row in sheet.rows_of(record, layout) for piece in row.pieces):
        shown_s = min(piece.start_s + piece.seconds, seconds) - piece.start_s
        assert shown_s == pytest.approx(min(piece.seconds, seconds), abs=1 / FS)


def test_leads_are_found_by_name_and_other_records_have_a_line_per_lead():
    mixed = recording(12, 10, [name.upper() for name in reversed(TWELVE_LEADS)])
    assert sheet.rows_of(mixed)[0].pieces[0].lead == 11
    assert [row.pieces for row in sheet.rows_of(recording(3, 10))] == [[sheet.Piece(k, 0.0, 10.0)] for k in range(3)]
    with pytest.raises(ValueError, match="layout 3x4: the record has no lead I, II, III, aVR, aVL, aVF, V4"):
        sheet.rows_of(recording(3, 10), "3x4")
    with pytest.raises(ValueError, match="layout '4x3': must be one of 3x4, 6x2, 12x1"):
        sheet.rows_of(twelve(), "4x3")


def test_a_long_record_shows_its_moments_or_its_first_minute():
    moments = [(0, "at the start"), (int(45 * FS), "within"), (int(90 * FS), "at the end")]
    rows = sheet.strips_of(recording(2, 90), moments)
    assert [(row.pieces[0].start_s, row.caption) for row in rows] == [
        (0, "at the start"), (40, "within"), (80, "at the end"),
    ]  # fmt: skip
    assert len(sheet.strips_of(recording(2, 90))) == 6 and len(sheet.strips_of(recording(1, 25), moments)) == 3
    assert len(sheet.strips_of(recording(1, 0.5))) == 1


# -------------------------------------------------------------------------------------------------------------- texts


def drawn_sheet(monkeypatch, tmp_path, record, rows, beats=(), title="title"):
    def draw(path):
        sheet.save_sheet(path, record, title, rows, beats)

    return drawn(monkeypatch, draw, tmp_path / "s.png")


@pytest.mark.parametrize("n_leads", [1, 2, 3, 12])
def test_no_text_of_a_sheet_overlaps_or_leaves_it(tmp_path, monkeypatch, n_leads):
    title = ", ".join(f"{LONG} {k} 0.99" for k in range(10))
    record = recording(n_leads, 60)
    figure, texts = drawn_sheet(monkeypatch, tmp_path, record, sheet.rows_of(record), title=title)
    assert_apart(figure, texts)
    assert any("Drawn: the first 10 of 60.0 s" in text.get_text() for text, _ in texts)


@pytest.mark.parametrize("layout", sheet.LAYOUTS)
def test_no_text_of_twelve_leads_overlaps_or_leaves_the_sheet(tmp_path, monkeypatch, layout):
    assert_apart(*drawn_sheet(monkeypatch, tmp_path, twelve(), sheet.rows_of(twelve(), layout)))


@pytest.mark.parametrize("classes", [["N", "S", "V", "PVC", "LBBB"], [f"{k} {LONG}" for k in range(5)]])
@pytest.mark.parametrize("n_beats", [1, 75, 500])
def test_no_text_over_beats_overlaps_or_leaves_the_sheet(tmp_path, monkeypatch, classes, n_beats):
    record = recording(1, 120)
    places = np.linspace(0, 14_999, n_beats).astype(int).tolist()
    beats = [sheet.Mark(place, k % 5, classes[k % 5]) for k, place in enumerate(places)]
    moments = [(2500 * k, f"uncertain: {LONG} {k}") for k in range(8)]
    assert_apart(*drawn_sheet(monkeypatch, tmp_path, record, sheet.strips_of(record, moments), beats))


def test_a_beat_is_named_over_its_line_and_in_the_legend(tmp_path, monkeypatch):
    record = recording(1, 10)
    beats = [sheet.Mark(250, 0, "N"), sheet.Mark(1250, 2, "V"), sheet.Mark(1260, 0, "N")]  # the third has no room
    figure, _ = drawn_sheet(monkeypatch, tmp_path, record, sheet.strips_of(record), beats)
    (axes,) = figure.axes
    names = {text.get_text(): text.get_position()[0] for text in axes.texts if text.get_text() in "NV"}
    assert names == {"N": 15 + 25, "V": 15 + 5 * 25}  # mm
    lines = {}
    for collection in axes.collections[2:]:  # after the paper
        lines[to_rgba(collection.get_color()[0])] = [segment[0, 0] for segment in collection.get_segments()]
    assert lines[to_rgba(class_style(0)["color"])] == pytest.approx([40, 15 + 5.04 * 25])
    assert lines[to_rgba(class_style(2)["color"])] == pytest.approx([140])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["class N", "class V"]


def test_a_day_is_drawn_without_a_copy_of_it(tmp_path):
    """24 hours at 250 Hz: the picture takes less memory than a tenth of the signal, and seconds."""
    record = pqrst.Record(np.zeros((3, 86_400 * 250), np.float32), 250.0, ["I", "II", "V1"])
    beats = [sheet.Mark(200 * k, k % 5, "NSVFQ"[k % 5]) for k in range(108_000)]
    rows = sheet.strips_of(record)
    sheet.save_sheet(tmp_path / "day.png", record, "first", rows, beats[:500])  # fonts are loaded before it is measured
    tracemalloc.start()
    sheet.save_sheet(tmp_path / "day.png", record, "title", rows, beats)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < record.signal.nbytes / 10
    assert_drawn(tmp_path / "day.png")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (lambda record: sheet.rows_at(record, 5), " Drawn: the first 10 of 60.0 s"),
        (lambda record: sheet.rows_at(record, 30.25), " Drawn: 25.2 to 35.2 of 60.0 s"),
        (lambda record: [row._replace(caption="here") for row in sheet.rows_at(record, 30)], " Drawn: 10 of 60 s"),
    ],
)
def test_the_foot_tells_which_seconds_are_drawn(tmp_path, monkeypatch, rows, told):
    record = recording(2, 60)
    figure, _ = drawn_sheet(monkeypatch, tmp_path, record, rows(record))
    (foot,) = (text.get_text() for text in figure.axes[0].texts if "mm/mV" in text.get_text())
    assert foot.endswith(f"Not a medical device.{told}")

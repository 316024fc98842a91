"""The ECG sheet: leads on millimetre paper at a stated speed and gain, with what was found in them.

    save_sheet("out.pdf", record, "one.hea: AF 0.93", rows_of(record, "3x4"))       # 12 leads and a rhythm strip
    save_sheet("out.png", record, "119.hea", strips_of(record, moments), beats)     # a lead in lines of ten seconds

A millimetre of the sheet is a millimetre of the file, in PNG (150 dots per inch), SVG and PDF alike: print it without
scaling. At 25 mm/s and 10 mm/mV the pulse that begins each line, 1 mV for 0.2 s, is 10 mm high and 5 mm wide. Each
stretch is drawn about its median, so that a drifting electrode does not leave the paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import pqrst
from figures import class_style, plain, printable, save
from recipe import TWELVE_LEADS

Array = npt.NDArray[Any]

SPEED, GAIN = 25.0, 10.0  # mm/s, mm/mV
LINE_S = 10.0  # of signal in a line
MARGIN, TITLE_ROOM, FOOT_ROOM = 5.0, 17.0, 12.0  # mm
LEAST_WIDTH = 270.0  # mm, as at the usual speed: a slower sheet has the same texts
PULSE_S, PULSE_MV = 0.2, 1.0
PULSE_GAP = 2.5  # mm on either side of the pulse
LEAST_LINE, MOST_LINE = 20.0, 70.0  # mm of a line's height; a signal beyond the second is cut off
MM = 1 / 25.4  # inches
FINE, COARSE, PEN = "#f7d5d5", "#e9a6a6", "black"
FOR, AGAINST = "#1b7837", "#762a83"  # green, purple: of a shade
FAINTEST = 0.02  # of a shade that is drawn
LAYOUTS = {"3x4": (3, 4), "6x2": (6, 2), "12x1": (12, 1)}  # rows, columns
RHYTHM_LEAD = "II"  # of the strip below 3x4
MAX_LINES = 6  # of a lead's first minute
LEGEND_COLUMNS, LEGEND_LINE = 3, 4.5  # mm
MAX_BESIDE = 4  # letters of a class that fit over a beat; a longer name stands in the legend alone
LETTER = 2.0  # mm of a letter over a beat


class Piece(NamedTuple):
    """A stretch of a lead."""

    lead: int  # place in the record
    start_s: float
    seconds: float


class Row(NamedTuple):
    """A line of the sheet: stretches side by side, under a caption."""

    pieces: list[Piece]
    caption: str = ""


class Corner(NamedTuple):
    """Where a stretch begins, mm of the sheet."""

    x: float
    y: float  # of its baseline


class Shade(NamedTuple):
    """How much each stretch of a lead speaks for something."""

    lead: int  # place in the record
    start_s: float  # of the first stretch
    step_s: float  # length of each
    values: Array  # (n,) -1 against to 1 for


class Mark(NamedTuple):
    """A beat to be marked."""

    sample: int
    number: int  # of its class, which chooses the colour
    name: str


# ------------------------------------------------------------------------------------------------ what is drawn


def rows_of(record: pqrst.Record, layout: str | None = None) -> list[Row]:
    """Lay out ten seconds of a record.

    Parameters
    ----------
    record : whose first ten seconds are drawn
    layout : `3x4`, four columns of 2.5 s with lead II below; `6x2`, two columns of 5 s; `12x1`; each column goes on in
        time where the one before it ends, or ends with the record where that is shorter. None: `3x4` of a record with
        the twelve leads, a line per lead of others

    Raises
    ------
    ValueError
        An unknown layout, or a record without the twelve leads that it needs.
    """
    places = pqrst.match_leads([[name] for name in TWELVE_LEADS], list(record.leads))
    if layout is None and -1 in places:
        return [Row([Piece(lead, 0.0, LINE_S)]) for lead in range(len(record.leads))]
    layout = layout or "3x4"
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}: must be one of {', '.join(LAYOUTS)}")
    if -1 in places:
        absent = [name for name, place in zip(TWELVE_LEADS, places, strict=True) if place < 0]
        raise ValueError(f"layout {layout}: the record has no lead {', '.join(absent)}")
    n_rows, n_columns = LAYOUTS[layout]
    seconds = LINE_S / n_columns
    latest = max(0.0, record.signal.shape[1] / record.fs - seconds)
    starts = [min(column * seconds, latest) for column in range(n_columns)]
    rows = [
        Row([Piece(int(places[column * n_rows + row]), start, seconds) for column, start in enumerate(starts)])
        for row in range(n_rows)
    ]
    if layout == "3x4":
        rows.append(Row([Piece(int(places[TWELVE_LEADS.index(RHYTHM_LEAD)]), 0.0, LINE_S)]))
    return rows


def strips_of(record: pqrst.Record, moments: Sequence[tuple[int, str]] = ()) -> list[Row]:
    """Lay out the first lead of a record in lines of ten seconds.

    Of a record longer than a minute the ten seconds around each moment, a sample with what is there; without moments
    its first minute.
    """
    duration_s = record.signal.shape[1] / record.fs
    if moments and duration_s > MAX_LINES * LINE_S:
        latest = duration_s - LINE_S
        starts = [min(max(0.0, sample / record.fs - LINE_S / 2), latest) for sample, _ in moments]
        return [Row([Piece(0, start, LINE_S)], text) for start, (_, text) in zip(starts, moments, strict=True)]
    n_lines = max(1, min(MAX_LINES, int(np.ceil(duration_s / LINE_S))))
    return [Row([Piece(0, k * LINE_S, LINE_S)]) for k in range(n_lines)]


def rows_at(record: pqrst.Record, middle_s: float) -> list[Row]:
    """Lay out each lead in a line: the ten seconds around a moment, s, that lie in the record."""
    start = max(0.0, min(middle_s - LINE_S / 2, record.signal.shape[1] / record.fs - LINE_S))
    return [Row([Piece(lead, start, LINE_S)]) for lead in range(len(record.leads))]


# ------------------------------------------------------------------------------------------------ the sheet


def save_sheet(
    path: str | Path,
    record: pqrst.Record,
    title: str,
    rows: Sequence[Row],
    beats: Sequence[Mark] = (),
    *,
    shades: Sequence[Shade] = (),
    speed: float = SPEED,
    gain: float = GAIN,
) -> None:
    """Draw a record on millimetre paper.

    Parameters
    ----------
    path : .png, .svg or .pdf
    record : signal (L, T) in mV; NaN leaves a gap
    title : what was found
    rows : as rows_of and strips_of give them
    beats : marked over every line that shows them
    shades : drawn behind the leads, FOR or AGAINST by their sign, the stronger the larger
    speed, gain : mm/s, mm/mV
    """
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    begin = MARGIN + PULSE_S * speed + 2 * PULSE_GAP  # of the signal, mm
    width = max(LEAST_WIDTH, begin + LINE_S * speed + MARGIN)
    bands = [_band(record, row, gain) for row in rows]  # (low, high) of each line, mm about its baseline
    above = [(5.0 if row.caption else 0.0) + (4.0 if beats else 0.0) for row in rows]  # mm
    marked = [[_beats_of(record.fs, piece, beats) for piece in row.pieces] for row in rows]
    classes = sorted({(beat.number, beat.name) for row in marked for piece in row for beat in piece})
    foot = FOOT_ROOM + LEGEND_LINE * -(-len(classes) // LEGEND_COLUMNS)
    height = TITLE_ROOM + foot + sum(high - low for low, high in bands) + sum(above)
    height = 5 * np.ceil(height / 5)
    figure.set_size_inches(width * MM, height * MM)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    _draw_paper(axes, width, height)
    top = height - TITLE_ROOM
    for row, (low, high), room, of_pieces in zip(rows, bands, above, marked, strict=True):
        if row.caption:
            axes.text(begin, top - 2.5, plain(row.caption, 100), fontsize=7, va="center")
        top -= room
        left, baseline = begin, top - high
        _draw_pulse(axes, baseline, speed, gain)
        for piece, here in zip(row.pieces, of_pieces, strict=True):
            _draw_shades(axes, shades, piece, Corner(left, baseline), (low, high), speed)
            _draw_piece(axes, record, piece, Corner(left, baseline), (low, high), speed, gain)
            places = [left + speed * (beat.sample / record.fs - piece.start_s) for beat in here]
            _draw_beats(axes, here, places, (baseline + low, top))
            left += piece.seconds * speed
        top = baseline + low
    axes.text(MARGIN, height - 3, textwrap.fill(plain(title, 340), 140), fontsize=8, va="top")
    axes.text(MARGIN, 4, _foot(rows, record.signal.shape[1] / record.fs, speed, gain), fontsize=7, va="center")
    if classes:
        handles = [Line2D([], [], label=f"class {plain(name, 40)}", **class_style(number)) for number, name in classes]
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(MARGIN, 6.0), bbox_transform=axes.transData,
            ncols=LEGEND_COLUMNS, fontsize=7, handlelength=3, frameon=False, borderpad=0, borderaxespad=0,
        )  # fmt: skip
    save(figure, path)


def _foot(rows: Sequence[Row], duration_s: float, speed: float, gain: float) -> str:
    """Say scale and how much of the record is drawn."""
    text = f"{speed:g} mm/s, {gain:g} mm/mV; each stretch about its median. Not a medical device."
    if any(row.caption for row in rows):
        n = len({row.pieces[0].start_s for row in rows})  # leads of the same ten seconds are one
        return f"{text} Drawn: {f'{n} times ' if n > 1 else ''}{LINE_S:g} of {duration_s:,.0f} s"
    first_s = min(piece.start_s for row in rows for piece in row.pieces)
    last_s = max(piece.start_s + piece.seconds for row in rows for piece in row.pieces)
    if duration_s <= last_s - first_s:
        return text
    drawn = f"{first_s:.1f} to {last_s:.1f}" if first_s else f"the first {last_s:g}"
    return f"{text} Drawn: {drawn} of {duration_s:,.1f} s"


def _stretch(record: pqrst.Record, piece: Piece) -> tuple[Array, Array]:
    """Return seconds since the piece begins and mV about the median, of its samples."""
    first = round(piece.start_s * record.fs)
    last = min(round((piece.start_s + piece.seconds) * record.fs), record.signal.shape[1])
    signal = record.signal[piece.lead, first:last].astype(np.float64)
    known = np.isfinite(signal)
    return np.arange(len(signal)) / record.fs, signal - (np.median(signal[known]) if known.any() else 0.0)


def _band(record: pqrst.Record, row: Row, gain: float) -> tuple[float, float]:
    """Return the room below and above a line's baseline, mm: of its signal and its pulse, in steps of 5 mm."""
    signals = np.concatenate([_stretch(record, piece)[1] for piece in row.pieces])
    signals = signals[np.isfinite(signals)] if np.isfinite(signals).any() else np.zeros(1)
    low = min(-LEAST_LINE / 4, gain * np.quantile(signals, 0.0005) - 2)
    high = min(MOST_LINE / 2, gain * np.quantile(signals, 0.9995) + 4)  # the lead's name stands above it
    high = max(LEAST_LINE / 2 + 2, gain * PULSE_MV + 2, high)
    return 5 * np.floor(max(low, -MOST_LINE / 2) / 5), 5 * np.ceil(high / 5)


def _draw_paper(axes: Any, width: float, height: float) -> None:
    for step, colour, pen in ((1.0, FINE, 0.3), (5.0, COARSE, 0.5)):
        upright = [[(x, 0), (x, height)] for x in np.arange(0, width + step / 2, step)]
        level = [[(0, y), (width, y)] for y in np.arange(0, height + step / 2, step)]
        axes.add_collection(LineCollection(upright + level, colors=colour, linewidths=pen, zorder=0), autolim=False)


def _draw_pulse(axes: Any, baseline: float, speed: float, gain: float) -> None:
    """Draw the calibration pulse: 1 mV for 0.2 s."""
    width, height = PULSE_S * speed, PULSE_MV * gain
    left = MARGIN + PULSE_GAP
    x = [left - 1.5, left, left, left + width, left + width, left + width + 1.5]
    y = [baseline, baseline, baseline + height, baseline + height, baseline, baseline]
    axes.plot(x, y, color=PEN, linewidth=0.8, gid="calibration")


def _draw_piece(
    axes: Any,
    record: pqrst.Record,
    piece: Piece,
    corner: Corner,
    band: tuple[float, float],
    speed: float,
    gain: float,
) -> None:
    """Draw a stretch with its lead's name, cut off at the edges of its line."""
    seconds, signal = _stretch(record, piece)
    name = record.leads[piece.lead]
    x, y = corner.x + speed * seconds, corner.y + gain * signal
    (line,) = axes.plot(x, y, color=PEN, linewidth=0.8, gid=f"lead {printable(name)}")
    low, high = band
    edge = Rectangle((corner.x, corner.y + low), piece.seconds * speed, high - low, transform=axes.transData)
    line.set_clip_path(edge)
    axes.text(corner.x + 1, corner.y + high - 0.5, plain(name, 12), fontsize=8, va="top", fontweight="bold")
    axes.plot([corner.x, corner.x], [corner.y - 2, corner.y + 2], color=PEN, linewidth=0.8)


def _draw_shades(
    axes: Any, shades: Sequence[Shade], piece: Piece, corner: Corner, band: tuple[float, float], speed: float
) -> None:
    """Shade the stretches of a piece by what speaks for something in them, or against it."""
    bottom, top = corner.y + band[0], corner.y + band[1]
    for shade in shades:
        edges = shade.start_s + shade.step_s * np.arange(len(shade.values) + 1) - piece.start_s
        edges = corner.x + speed * edges.clip(0, piece.seconds)  # mm
        drawn = (np.abs(shade.values) >= FAINTEST) & (np.diff(edges) > 0)
        if shade.lead != piece.lead or not drawn.any():
            continue
        corners = [
            [(left, bottom), (right, bottom), (right, top), (left, top)]
            for left, right in zip(edges[:-1][drawn], edges[1:][drawn], strict=True)
        ]
        colours = [to_rgba(FOR if value > 0 else AGAINST, min(1.0, abs(value))) for value in shade.values[drawn]]
        stretches = PolyCollection(corners, facecolors=colours, edgecolors="none", antialiased=False, zorder=0.5)
        axes.add_collection(stretches, autolim=False)


def _beats_of(fs: float, piece: Piece, beats: Sequence[Mark]) -> list[Mark]:
    first, last = piece.start_s * fs, (piece.start_s + piece.seconds) * fs
    return sorted(beat for beat in beats if first <= beat.sample < last)


def _draw_beats(axes: Any, beats: Sequence[Mark], places: Sequence[float], edges: tuple[float, float]) -> None:
    """Mark beats by a line at each place, mm, and by name where that is short and has room."""
    free = -np.inf  # where the last name ends
    for number in sorted({beat.number for beat in beats}):
        lines = [[(x, edges[0]), (x, edges[1])] for beat, x in zip(beats, places, strict=True) if beat.number == number]
        axes.add_collection(LineCollection(lines, linewidths=0.8, zorder=1, **class_style(number)), autolim=False)
    for beat, x in zip(beats, places, strict=True):
        half = LETTER * len(beat.name) / 2 + 0.3
        if len(beat.name) <= MAX_BESIDE and x - half >= free:
            axes.text(x, edges[1] + 0.4, plain(beat.name), fontsize=7, ha="center", va="bottom")
            free = x + half

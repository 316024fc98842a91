"""CSV and its relatives, as people export them: each is read right, or refused with the line and what was expected."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqrst
import readers
from formats import times

FS = 250.0


def signal_of(n):
    """(2, n) values in mV with three decimals."""
    t = np.arange(n) / FS
    return np.round([np.sin(2 * np.pi * 1.3 * t), 0.5 * np.cos(2 * np.pi * 0.7 * t) - 0.2], 3)


def rows_of(x, separator=",", decimal=".", end="\n", t=None, tail=""):
    """Text with a row for each sample, perhaps with a stamp ahead."""
    lines = []
    for i, sample in enumerate(x.T):
        cells = ([t[i]] if t is not None else []) + [f"{value:.3f}".replace(".", decimal) for value in sample]
        lines.append(separator.join(cells) + tail)
    return end.join(lines) + end


def written(tmp_path, text, name="r.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


SECONDS = [f"{i / FS:.3f}" for i in range(600)]
CLOCK = [f"'0:{float(s):06.3f}'" for s in SECONDS]
X = signal_of(600)


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("time,I,II\n", rows_of(X, t=SECONDS)),
        ("time,I,II\r\n", rows_of(X, t=SECONDS, end="\r\n")),
        ("time,I,II\r", rows_of(X, t=SECONDS, end="\r")),
        ("\ufefftime,I,II\n", rows_of(X, t=SECONDS)),
        ("time;I;II\n", rows_of(X, ";", ",", t=[s.replace(".", ",") for s in SECONDS])),
        ("time;I;II\n", rows_of(X, ";", t=SECONDS)),
        ("time\tI\tII\n", rows_of(X, "\t", ",", t=[s.replace(".", ",") for s in SECONDS])),
        ("time I II\n", rows_of(X, "   ", t=SECONDS)),
        ("time|I|II\n", rows_of(X, "|", t=SECONDS)),
        ("      Elapsed time      I      II\n   (seconds)    (mV)    (mV)\n", rows_of(X, "    ", t=SECONDS)),
        ("Zeit;I;II\n", rows_of(X, ";", ",", t=[f"24.12.2024 10:00:{i / FS:06.3f}" for i in range(600)])),
        ('"time","I","II"\n', re.sub(r"[^,\n]+", lambda cell: f'"{cell[0]}"', rows_of(X, t=SECONDS)).replace(".", ",")),
        ("time,I,II\n", rows_of(X, t=SECONDS, tail=",")),
        ("time,I,II,\n", rows_of(X, t=SECONDS, tail=",")),
        ("time,I,II,\n", rows_of(X, t=SECONDS)),
        ("# time,I,II\n", rows_of(X, t=SECONDS)),
        ("sep=,\ntime,I,II\n", rows_of(X, t=SECONDS)),
        ('"time","I","II"\n', rows_of(X, t=SECONDS)),
        ("'time','I','II'\n", rows_of(X, t=SECONDS)),
        ("'Elapsed time','I','II'\n'seconds','mV','mV'\n", rows_of(X, t=SECONDS)),
        ("'Elapsed time','I','II'\n'hh:mm:ss.mmm','mV','mV'\n", rows_of(X, t=CLOCK)),
        ("Name: nobody\nRate: 250 Hz\n\ntime,I,II\n", rows_of(X, t=SECONDS)),
        ("time_ms,I,II\n", rows_of(X, t=[str(4 * i) for i in range(600)])),
        ("Time [ms],I,II\n", rows_of(X, t=[str(4 * i) for i in range(600)])),
        ("Timestamp (us),I (mV),II (mV)\n", rows_of(X, t=[str(4000 * i) for i in range(600)])),
        ("timestamp,I,II\n", rows_of(X, t=[str(1_700_000_000_000 + 4 * i) for i in range(600)])),
        ("epoch,I,II\n", rows_of(X, t=[f"{1_700_000_000 + i / FS:.3f}" for i in range(600)])),
        ("timestamp,I,II\n", rows_of(X, t=[str(1_700_000_000_000_000_000 + 4_000_000 * i) for i in range(600)])),
        ("time,I,II\n", rows_of(X, t=[f"2024-03-31T01:59:{58 + i / FS:06.3f}Z" if i < 500 else
                                      f"2024-03-31T02:00:{i / FS - 2:06.3f}Z" for i in range(600)])),
        ("datetime,I,II\n", rows_of(X, t=[f"2024-03-31 10:00:{i / FS:06.3f}" for i in range(600)])),
        ("time,I,II\n", rows_of(X, t=[f"23:59:{58 + i / FS:06.3f}" if i < 500 else
                                      f"00:00:{i / FS - 2:06.3f}" for i in range(600)])),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_record(tmp_path, heading, rows):
    record = readers.read(written(tmp_path, heading + rows))
    assert (record.fs, record.leads) == (FS, ("I", "II"))
    np.testing.assert_array_equal(record.signal, X.astype(np.float32))
    assert record.warnings == []
    assert re.fullmatch(r"read as 2 leads, 250 Hz from column \S.*, mV(, as no unit is given)?", record.comments[0])


@pytest.mark.parametrize(
    ("heading", "rows", "leads"),
    [
        (",MLII,V5\n", rows_of(X, t=[str(i) for i in range(600)]), ("MLII", "V5")),  # the index of a pandas table
        ("MLII,V5\n", rows_of(X, t=[str(i) for i in range(600)]), ("MLII", "V5")),  # the row names of R
        ("'sample #','MLII','V5'\n", rows_of(X, t=[str(i) for i in range(600)]), ("MLII", "V5")),
        ("'sample #','MLII','V5'\n'sample #','mV','mV'\n", rows_of(X, t=[str(i) for i in range(600)]), ("MLII", "V5")),
        ("I,II,note\n", rows_of(X, tail=",good"), ("I", "II")),
        ("Lead I (Einthoven),DII\n", rows_of(X), ("Lead I (Einthoven)", "DII")),
    ],
)
def test_columns_beside_the_leads_shift_none(tmp_path, heading, rows, leads):
    record = readers.read(written(tmp_path, heading + rows), fs=FS)
    assert (record.fs, record.leads) == (FS, leads)
    np.testing.assert_array_equal(record.signal, X.astype(np.float32))


@pytest.mark.parametrize("empty", ["", "nan", "NA"])
@pytest.mark.parametrize("first", [0, 300])
@pytest.mark.parametrize("name", ["", "index,"])
def test_a_last_lead_that_ends_without_a_value_is_no_separator_at_the_end(tmp_path, empty, first, name):
    rows = [f"{i},{a!r},{empty if i >= first else repr(b)}" for i, (a, b) in enumerate(X.T.tolist())]
    if not name and not (empty or first):
        return  # row names, or a separator at the end: nobody can tell
    record = readers.read(written(tmp_path, f"{name}I,II\n" + "\n".join(rows)), fs=FS)
    assert record.leads == ("I", "II")
    np.testing.assert_array_equal(record.signal[0], X[0].astype(np.float32))
    np.testing.assert_array_equal(record.signal[1, :first], X[1, :first].astype(np.float32))
    assert np.isnan(record.signal[1, first:]).all()


@pytest.mark.parametrize("heading", ["I (uV),II [µV]\n", "I_uv,II_uv\n", "I,II\nuV,µV\n", "Unit: uV\nI,II\n"])
def test_units_of_the_table_are_converted(tmp_path, heading):
    record = readers.read(written(tmp_path, heading + rows_of(1000 * X)), fs=FS)
    np.testing.assert_allclose(record.signal, X, rtol=1e-6)
    assert (record.leads, record.units) == (("I", "II"), ("mV", "mV"))
    assert record.comments == ["read as 2 leads, 250 Hz as asked, uV"]
    record = readers.read(written(tmp_path, "I,II\n" + rows_of(1000 * X), encoding="cp1252"), 1000, FS)
    np.testing.assert_allclose(record.signal, X, rtol=1e-6)
    assert record.comments == ["read as 2 leads, 250 Hz as asked, mV as asked"]


WATCH = 'Name,A B\nDate of Birth,"1 Jan 1970"\nRecorded Date,2024-01-01 10:00:00 +0100\nDevice,"Watch5,4"\n'


@pytest.mark.parametrize(
    ("preamble", "decimal"),
    [
        (WATCH + "Sample Rate,510.227 hertz\n\nLead,Lead I\nUnit,µV\n\n", "."),
        (WATCH + 'Messrate,"510,227 Hertz"\n\nAbleitung,Ableitung I\nEinheit,µV\n\n', ","),
    ],
)
def test_a_watch_says_rate_unit_and_lead_above_one_column(tmp_path, preamble, decimal):
    record = readers.read(written(tmp_path, preamble + rows_of(1000 * X[:1], decimal=decimal)))
    assert (record.fs, record.leads, record.units) == (510.227, ("I",), ("mV",))
    np.testing.assert_allclose(record.signal, X[:1], rtol=1e-6, atol=1e-7)
    assert record.comments == ["read as 1 lead, 510.227 Hz from the lines above the table, uV"]
    assert not any("A B" in text or "1970" in text for text in (*record.comments, *record.warnings, record.start_time))


@pytest.mark.parametrize("fs", [499.31, 129.6, 62.5, 249.89, 512.0, 257.0, 977.5, 1000.0])
@pytest.mark.parametrize(("digits", "seconds"), [(6, 60), (3, 600)])
def test_a_rate_is_no_more_rounded_than_its_stamps(tmp_path, fs, digits, seconds):
    n = int(seconds * fs)
    text = "time,ECG\n" + "".join(f"{i / fs:.{digits}f},0.1\n" for i in range(n))
    found = readers.read(written(tmp_path, text)).fs
    assert abs(found / fs - 1) <= 2 * 10.0**-digits / seconds


@pytest.mark.parametrize(
    ("t", "resolution", "fs"),
    [
        (np.floor(np.arange(720) / 360 * 1000) / 1000, 1e-3, 360.0),
        (np.floor(np.arange(5000) / 0.512) / 1000, 1e-3, 512.0),
        (np.arange(100) / 100 + 7e8, 1e-2, 100.0),
        (np.array([0, 0.004]), 1e-3, 250.0),
    ],
)
def test_rounded_stamps_tell_the_simplest_rate_that_they_allow(t, resolution, fs):
    found = times.grid(t - t[0], resolution, "r")
    assert found.fs == fs
    np.testing.assert_array_equal(found.place, np.arange(len(t)))


@pytest.mark.parametrize(
    ("fs", "digits", "lost"),
    [(250, 3, (5000, 12500)), (360, 3, (100, 101)), (360, 6, (100, 103)), (1000, 3, (77, 78)), (130, 3, (40, 90))],
)
def test_a_gap_of_the_stamps_is_one_of_nan(tmp_path, fs, digits, lost):
    n = 15000
    x = np.round(np.sin(np.arange(n) / 9), 3)
    keep = (np.arange(n) < lost[0]) | (np.arange(n) >= lost[1])
    rows = "".join(f"{i / fs:.{digits}f},{x[i]}\n" for i in np.flatnonzero(keep))
    path = written(tmp_path, "time,I\n" + rows)
    for asked in (None, fs):
        record = readers.read(path, fs=asked)
        assert (record.fs, record.n_samples) == (fs, n)
        expected = np.where(keep, x, np.nan).astype(np.float32)
        np.testing.assert_array_equal(record.signal[0], expected)
        seconds = (lost[1] - lost[0]) / fs
        assert record.warnings == [f"{path}: column time has gaps of {seconds:.3g} s in all; they are NaN"]


def test_stamps_by_packet_need_a_rate_and_are_then_no_matter(tmp_path):
    stamps = np.repeat(np.arange(600) / 130, 73)[:600]
    path = written(tmp_path, "time,ECG\n" + "".join(f"{t:.3f},{v}\n" for t, v in zip(stamps, X[0])))
    with pytest.raises(
        pqrst.FormatError, match=r"column time does not rise \(row 2 repeats a time\): the rate must be"
    ):
        readers.read(path)
    record = readers.read(path, fs=130)
    assert (record.fs, record.n_samples) == (130, 600)
    np.testing.assert_array_equal(record.signal, X[:1].astype(np.float32))
    assert len(record.warnings) == 1 and record.warnings[0].endswith("the rate must be given; it is not used")


def test_samples_that_a_counter_leaves_out_are_nan(tmp_path):
    numbers = [*range(250), *range(300, 650)]
    rows = rows_of(X, t=[str(n) for n in numbers])
    path = written(tmp_path, "sample,I,II\n" + rows)
    record = readers.read(path, fs=FS)
    assert record.n_samples == 650
    np.testing.assert_array_equal(record.signal[:, numbers], X.astype(np.float32))
    assert np.isnan(record.signal[:, 250:300]).all()
    assert record.warnings == [f"{path}: column sample has gaps of 0.2 s in all; they are NaN"]


def test_a_rate_that_the_user_gives_wins_over_the_stamps(tmp_path):
    path = written(tmp_path, "time,I,II\n" + rows_of(X, t=SECONDS))
    record = readers.read(path, fs=500)
    assert (record.fs, record.n_samples) == (500, 600)
    assert record.warnings == [f"{path}: 250 Hz from column time is not used, but 500 Hz as asked"]
    slow = written(tmp_path, "time,I,II\n" + rows_of(X, t=[f"{i / 10:.1f}" for i in range(600)]), "slow.csv")
    with pytest.raises(pqrst.FormatError, match="would be 10 Hz in seconds"):
        readers.read(slow)
    assert readers.read(slow, fs=10).fs == 10
    named = written(tmp_path, "time_s,I,II\n" + rows_of(X, t=[f"{i / 10:.1f}" for i in range(600)]), "named.csv")
    with pytest.raises(
        pqrst.FormatError, match="10 Hz from column time_s is no rate of an ECG; tell it with --inference"
    ):
        readers.read(named)


def test_cells_without_a_value_are_nan(tmp_path):
    cells = ["0.5", "", "nan", "NA", "-", "null", "0.25"]
    text = "time,I,II\n" + "".join(f"{i / FS:.3f},{cell},1\n" for i, cell in enumerate(cells * 20))
    record = readers.read(written(tmp_path, text))
    expected = np.array([0.5, *[np.nan] * 5, 0.25] * 20, np.float32)
    np.testing.assert_array_equal(record.signal[0], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I,II\n1,2\n3,4\n", "does not tell its sampling rate; tell it with --inference.fs 500, or --data.arguments"),
        ("1,2\n3,4\n5,6\n", "line 1 holds 2 values, expected a row of names, such as time,I,II"),
        ("time,lead1,lead2\n0,1,2\n.01,1,2\n", "columns lead1, lead2; expected lead1 to lead12"),
        ("time,lead1,II\n0,1,2\n.01,1,2\n", "expected lead1 to lead12, or lead names"),
        ("time,I\n0,1\n0,2\n.1,2\n", "column time does not rise"),
        ("time,I\n0,1\n1,2\n0.5,2\n", "column time does not rise"),
        ("time,I\n0,x\n.01,y\n", "line 2: column I: 'x' is no number"),
        ("time\n0\n.01\n", "no columns besides time"),
        ("time,I\n0,1\n.01," + "9" * 5000, "column I: a number has more digits than can be read"),
        ("time,signal\n0,1\n.01,--\n.02,3\n", "line 3: column signal: '--' is no number"),
        ("time,I,II\n0,1,2\n.01,1\n.02,1,2\n.03,1,2\n", "line 3 has 2 values, expected 3 as in line 2"),
        ("time,I,II\n0,1,2\n.01,1,2\n.02,1,2,7\n.03,1,2\n", "line 4 has 4 values, expected 3 as in line 2"),
        ('time,I,II\n0,"1",2\n.01,1\n.02,1,2\n.03,1,2\n', "line 3 has 2 values, expected 3 as in line 2"),
        ("time,I,II\n0,bad,2\n.01,1,2\n.02,1,2\n", "line 2 is neither a row of names nor one of numbers"),
        ("time,I\n0,004,0,5\n0,008,0,6\n0,012,0,7\n", "has 2 names, line 2 has 4 values: decimal commas"),
        ("time,I\ns,adu\n" + "".join(f"{k / 100},{k}\n" for k in range(30)), "voltage: I in adu; tell it with"),
        ("time,I\n0,1\n.01,1\n.02,1\n.03,1\ntime,I\n.04,1\n.05,1\n", "line 6: column time: 'time' is no number"),
        ("time,note\n0,good\n.01,bad\n", "no column is an ECG lead: note"),
        ("time,label,hr\n0,1,2\n.01,2,3\n", "no column is an ECG lead: label, hr"),
        ("time,I ,I\n0,1,2\n.01,2,3\n", "several columns are called I$"),
        ("time,I,\n0,1,5\n.01,2,9\n.02,2,1\n", "column 3 has no name; its first value is 5"),
        ("time,I\n" + "".join(f"{k / 100},1\n" for k in range(30)) + "99,1\n", "has gaps that are 319 times"),
        ("time,I\n0,1\n.01,1\n.0137,1\n.03,1\n.0341,1\n.0472,1\n", "is uneven: steps are up to 12.4 ms off 3.9 ms"),
        ("time,I\n2024-01-01T00:00,1\nyesterday,1\n2024-01-01T00:02,1\n", "cannot be read as times"),
        ("time,I\n0,1\x00\n", "byte 10 is NUL, which no text has"),
        (",".join(f"c{k}" for k in range(10_000)) + "\n" + ("1," * 9_999 + "1\n") * 3, "has 10000 columns, expected"),
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("hello world\n", "not a table of numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(pqrst.FormatError, match=message) as caught:
        readers.read(written(tmp_path, text))
    assert "r.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "leads"),
    [
        ("time,I,II,label,hr", ["I", "II"]),
        ("time,MLII,V1,HR,Unnamed: 0", ["MLII", "V1"]),
        ("time,ECG I,lead II,spo2,resp", ["ECG I", "lead II"]),
        ("time,ECG,annotation", ["ECG"]),
        ("time,ch1,ch2,quality", ["ch1", "ch2"]),
        ("time,AVR,V4R,VX,D2,RESP", ["AVR", "V4R", "VX", "D2"]),
        ("time,chest,hr", ["chest"]),  # no name is known: what is not known for something else
        ("time,signal,patch", ["signal", "patch"]),
        ("index,time,I", ["I"]),
        ("time,DI,DII,DIII,MDC_ECG_LEAD_V1,-aVR", ["DI", "DII", "DIII", "MDC_ECG_LEAD_V1", "-aVR"]),
    ],
)
def test_columns_that_are_no_leads_are_left_out_and_listed(tmp_path, columns, leads):
    names = columns.split(",")
    rows = np.column_stack([np.arange(100) / 100] + [np.full(100, float(k)) for k in range(1, len(names))])
    rows = rows if names[0] == "time" else rows[:, [1, 0, *range(2, len(names))]]
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header=columns, comments="")
    record = readers.read(tmp_path / "a.csv")
    assert list(record.leads) == leads
    left = [name for name in names if name not in (*leads, "time")]
    expected = [f"{tmp_path}/a.csv: columns that are no ECG leads are left out: {', '.join(left)}"] if left else []
    assert record.warnings == expected


def test_text_beside_the_leads_does_not_matter(tmp_path):
    record = readers.read(written(tmp_path, "time,I,note\n0,1,good\n.01,2,bad\n"))
    assert record.signal.tolist() == [[1, 2]]
    path = written(tmp_path, "time,chest,note\n0,1,good\n.01,2,bad\n")  # no name is known
    record = readers.read(path)
    assert (list(record.leads), record.signal.tolist()) == (["chest"], [[1, 2]])
    assert record.warnings == [f"{path}: columns that are no ECG leads are left out: note"]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.text(st.sampled_from("0123456789.,;:\t |-+eEIVhzmuµ\"'#[]()ZT/\n\r"), max_size=40), max_size=12
        ).map(lambda lines: "\n".join(lines).encode()),
    ),
    st.sampled_from([None, 250.0]),
)
def test_whatever_the_bytes_are_a_table_is_read_or_refused_in_one_line(tmp_path_factory, content, fs):
    path = tmp_path_factory.mktemp("fuzz") / "r.csv"
    path.write_bytes(content)
    try:
        record = readers.read(path, fs=fs)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert record.signal.dtype == np.float32 and record.fs > 0

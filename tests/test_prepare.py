"""The chain record -> rows against the public kernels composed on float64 arrays, and its rules for gaps and leads."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_record
from hypothesis import given
from hypothesis import strategies as st

import pqrst
from recipe import Recipe

TWELVE = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def recipe(**changes):
    tree = Recipe(fs=250, dtype="float32", leads=[["II", "MLII"], ["V1", "V5"]]).tree()
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree[key], dict) else value
    return tree


def window(kind, samples, **more):
    return {"kind": kind, "samples": samples, "length_s": None, **more}


def record(rng, n=5000, fs=500.0, leads=("V1", "II", "X")):
    return pqrst.Record(rng.normal(size=(len(leads), n)).cumsum(axis=1).astype(np.float32) / 10, fs, list(leads))


def conditioned(r, slots, fs_out=250):
    x = np.stack([r.signal[list(r.leads).index(lead)] for lead in slots]).astype(np.float64)
    return pqrst.resample(pqrst.bandpass(x, r.fs, 0.5, 40.0, 3), r.fs, fs_out)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["zscore", "minmax"])
@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_whole_records_equal_the_composed_kernels(rng, fs, kind, dtype):
    r = record(rng, n=round(10 * fs), fs=fs)
    rows = pqrst.prepare(r, recipe(dtype=dtype, scale={"kind": kind}, window=window("record", 2500))).rows
    scale = getattr(pqrst, kind)
    expected = scale(conditioned(r, ["II", "V1"])).astype(np.float32).astype(dtype)
    np.testing.assert_array_equal(rows[0], expected)


@pytest.mark.parametrize("n", [200, 2499, 2500, 2501, 6000])
def test_a_record_is_cropped_or_padded_at_its_end_and_scaled_over_what_is_valid(rng, n):
    r = record(rng, n=n, fs=250.0)
    prepared = pqrst.prepare(r, recipe(window=window("record", 2500)))
    kept = min(n, 2500)
    expected = pqrst.zscore(np.ascontiguousarray(conditioned(r, ["II", "V1"])[:, :kept])).astype(np.float32)
    np.testing.assert_array_equal(prepared.rows[0, :, :kept], expected)
    assert (prepared.rows[0, :, kept:] == 0).all()
    np.testing.assert_array_equal(prepared.valid, [[0, kept]])


@pytest.mark.parametrize(("n", "overlap_s", "starts"), [
    (2499, 0, [0]), (2500, 0, [0]), (2501, 0, [0, 2500]), (7500, 0, [0, 2500, 5000]),
    (5000, 5, [0, 1250, 2500]), (5001, 5, [0, 1250, 2500, 3750]),
])  # fmt: skip
def test_windows_cover_every_sample(rng, n, overlap_s, starts):
    r = record(rng, n=n, fs=250.0)
    how = recipe(window=window("window", 2500, overlap_s=overlap_s), scale={"kind": "none"})
    prepared = pqrst.prepare(r, how)
    assert list(prepared.start) == starts
    assert len(starts) == pqrst.n_rows(how, n, 250.0)
    x = conditioned(r, ["II", "V1"]).astype(np.float32)
    for row, start, (first, last) in zip(prepared.rows, prepared.start, prepared.valid):
        np.testing.assert_array_equal(row[:, first:last], x[:, start : start + last])
        assert first == 0 and last == min(2500, n - start)


def test_beats_stand_where_the_resampled_centre_rounds_to(rng):
    r = record(rng, n=3600, fs=360.0)
    centers = np.array([0, 1, 100, 101, 102, 1799, 3599])
    how = recipe(window=window("beat", 51), scale={"kind": "none"})
    prepared = pqrst.prepare(r, how, [centers])
    x = conditioned(r, ["II", "V1"])
    moved = [(2 * c * 250 + 360) // (2 * 360) for c in centers.tolist()]
    expected = pqrst.segment(x, np.array(moved), 51).astype(np.float32)
    for row, wanted, (first, last) in zip(prepared.rows, expected, prepared.valid):
        np.testing.assert_array_equal(row[:, first:last], wanted[:, first:last])
        assert (row[:, :first] == 0).all() and (row[:, last:] == 0).all()
    np.testing.assert_array_equal(prepared.start, centers)
    np.testing.assert_array_equal(prepared.valid[:, 0], np.maximum(0, 25 - np.array(moved)))


def test_scale_over_record_shares_one_mean_between_leads(rng):
    r = record(rng)
    row = pqrst.prepare(r, recipe(window=window("record", 2500), scale={"over": "record"})).rows[0]
    expected = pqrst.zscore(conditioned(r, ["II", "V1"]).reshape(1, -1)).reshape(2, -1).astype(np.float32)
    np.testing.assert_array_equal(row, expected)


def test_notch_and_no_bandpass_are_as_the_kernels(rng):
    r = record(rng)
    how = recipe(window=window("record", 2500), bandpass=None, notch_hz=50.0, scale={"kind": "none"})
    x = r.signal[[1, 0]].astype(np.float64)
    expected = pqrst.resample(pqrst.notch(x, 500.0, 50.0), 500, 250).astype(np.float32)
    np.testing.assert_array_equal(pqrst.prepare(r, how).rows[0], expected)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=4), st.integers(1, 4))
def test_rows_do_not_depend_on_threads_batch_or_the_other_records(order, n_threads):
    rng = np.random.default_rng(7)
    records = [record(rng, n=700 + 100 * k, fs=fs) for k, fs in enumerate([250.0, 500.0, 360.0, 250.0, 500.0])]
    how = recipe(window=window("window", 100))
    together = pqrst.prepare([records[k] for k in order], how, n_threads=n_threads)
    alone = [pqrst.prepare(records[k], how) for k in order]
    np.testing.assert_array_equal(together.rows, np.concatenate([a.rows for a in alone]))
    np.testing.assert_array_equal(together.record, np.repeat(np.arange(len(order)), [len(a.rows) for a in alone]))


def test_a_path_and_the_record_read_from_it_give_the_same_rows(rng, tmp_path):
    path = write_record(tmp_path, "r", rng.normal(size=(2, 3000)), 250, ["V1", "II"])
    a, b, c = (pqrst.prepare(x, recipe()) for x in (path, str(path.with_suffix("")), pqrst.read(path)))
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.rows, c.rows)


def test_rows_can_be_written_into_an_array(rng):
    r = record(rng)
    out = np.full((3, 2, 2500), 7, np.float32)
    prepared = pqrst.prepare([r, r], recipe(window=window("record", 2500)), out=out)
    assert np.shares_memory(prepared.rows, out)
    np.testing.assert_array_equal(out[:2], pqrst.prepare([r, r], recipe(window=window("record", 2500))).rows)
    assert (out[2] == 7).all()
    for wrong in (out[:1], out.astype(np.float64), out[:, :1], out[:, :, ::2]):
        with pytest.raises(ValueError, match="out"):
            pqrst.prepare([r, r], recipe(window=window("record", 2500)), out=wrong)


# ------------------------------------------------------------------------------------------------ leads


@pytest.mark.parametrize(
    ("leads", "chosen"),
    [
        (["MLII", "V1"], [0, 1]),
        (["V5", "MLII"], [1, 0]),  # 114: swapped
        (["V5", "V2"], [0, 1]),  # 102, 104: no MLII; V5 fills the first slot and is not used again
        (["MLII", "V4"], [0, 1]),  # 124
        (["MLII", "V2"], [0, 1]),
        (["MLII", "V5"], [0, 1]),
        (["mlii", "v1"], [0, 1]),
        (["MLII"], [0, -1]),
        (["X", "Y"], [-1, -1]),
    ],
)
def test_slots_take_the_leads_of_every_mitbih_record(leads, chosen):
    assert pqrst.match_leads([["MLII", "II", "V5"], ["V1", "V5", "V2", "V4"]], leads) == chosen


@pytest.mark.parametrize("name", ["ECG I", "ecg_i", "Lead I", "EKG Lead I", "LEAD_I", " i "])
def test_what_only_says_that_it_is_a_lead_does_not_count(name):
    assert pqrst.match_leads([["I"], ["ECG"]], [name, "ECG"]) == [0, 1]
    assert pqrst.match_leads([[name]], ["MLI", "ECG1", "-I", "I"]) == [3]


def test_a_missing_lead_is_an_error_that_names_both_lists_or_zeros(rng):
    r = record(rng, leads=("II", "X"))
    with pytest.raises(ValueError, match=r"has leads II, X; the recipe's slots accept II\|MLII, V1\|V5"):
        pqrst.prepare(r, recipe())
    prepared = pqrst.prepare(r, recipe(missing="zeros"))
    assert (prepared.rows[0, 1] == 0).all() and prepared.rows[0, 0].std() > 0.5
    np.testing.assert_array_equal(prepared.lead_mask, [[1, 0]])
    with pytest.raises(ValueError, match="has leads X"):
        pqrst.prepare(record(rng, leads=("X",)), recipe(missing="zeros"))


def test_a_lead_that_is_no_voltage_is_refused(rng):
    r = pqrst.Record(rng.normal(size=(2, 1000)).astype(np.float32), 250.0, ["II", "V1"], units=["mmHg", "mV"])
    with pytest.raises(ValueError, match="lead II is in mmHg, not mV"):
        pqrst.prepare(r, recipe())


def test_a_flat_lead_is_zeros_with_a_warning(rng):
    signal = rng.normal(size=(2, 5000)).astype(np.float32)
    signal[1] = 1.7
    prepared = pqrst.prepare(pqrst.Record(signal, 500.0, ["II", "V1"], name="r"), recipe())
    assert (prepared.rows[0, 1] == 0).all() and (prepared.rows[0, 0] != 0).any()
    assert [(number, text) for number, _, text in prepared.warnings] == [(0, "r: lead V1 is flat")]


def test_a_stretch_of_flat_line_is_zeros_not_amplified_rounding(rng):
    signal = rng.normal(size=(2, 30000)).astype(np.float32)
    signal[0, 10000:20000] = 0.3
    prepared = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"]), recipe(window=window("window", 1000)))
    flat = (prepared.start >= 10000) & (prepared.start < 20000)
    assert (prepared.rows[flat][:, 0] == 0).all() and (prepared.rows[~flat][:, 0] != 0).any()


# ------------------------------------------------------------------------------------------------ gaps


@pytest.mark.parametrize(("first", "last"), [(0, 3), (400, 401), (400, 460), (4990, 5000)])
def test_short_gaps_are_bridged_by_a_line_before_any_filter(rng, first, last):
    r = record(rng, leads=("II", "V1"))
    bridged = r.signal.astype(np.float64)
    good = np.r_[0:first, last:5000]
    bridged[0, first:last] = np.interp(np.arange(first, last), good, bridged[0, good])
    signal = r.signal.copy()
    signal[0, first:last] = np.nan
    prepared = pqrst.prepare(pqrst.Record(signal, 500.0, ["II", "V1"]), recipe(window=window("record", 2500)))
    x = pqrst.resample(pqrst.bandpass(bridged, 500.0, 0.5, 40.0, 3), 500, 250)
    # np.interp orders its products in another way: the last bits may differ
    np.testing.assert_allclose(prepared.rows[0], pqrst.zscore(x), atol=1e-6)
    np.testing.assert_array_equal(prepared.lead_mask, [[1, 1]])


def gappy(rng, first, last, value=np.nan):
    signal = rng.normal(size=(2, 10000)).astype(np.float32)
    signal[1, first:last] = value
    return pqrst.Record(signal, 250.0, ["II", "V1"], name="r")


def test_a_long_gap_makes_the_lead_missing_in_the_rows_it_touches(rng):
    r = gappy(rng, 4100, 4400)  # 1.2 s
    how = recipe(window=window("window", 1000))
    prepared = pqrst.prepare(r, {**how, "missing": "zeros"})
    np.testing.assert_array_equal(prepared.lead_mask[:, 1], [1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    assert (prepared.rows[4, 1] == 0).all() and np.isfinite(prepared.rows).all()
    prepared = pqrst.prepare(r, how)
    np.testing.assert_array_equal(prepared.index, [0, 1, 2, 3, 5, 6, 7, 8, 9])
    assert prepared.errors == [
        (0, "rows", "r: 1 of 10 rows dropped: too many invalid samples in a lead that the recipe needs")
    ]


def test_many_short_gaps_make_the_lead_missing_too(rng):
    r = gappy(rng, 0, 10000, 0.5)
    signal = r.signal.copy()
    signal[1] = rng.normal(size=10000)
    signal[1, 2000:3000:5] = np.nan  # a fifth of the third window
    prepared = pqrst.prepare(
        pqrst.Record(signal, 250.0, ["II", "V1"]), recipe(missing="zeros", window=window("window", 1000))
    )
    np.testing.assert_array_equal(prepared.lead_mask[:, 1], [1, 1, 0, 1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_row_ever_holds_nan(rng, value):
    for first, last in ((0, 10000), (0, 1), (9999, 10000), (100, 9000), (5000, 5001)):
        for missing in ("error", "zeros"):
            how = recipe(missing=missing, window=window("window", 500))
            assert np.isfinite(pqrst.prepare(gappy(rng, first, last, value), how, skip_errors=True).rows).all()


def test_a_record_without_a_usable_row_is_listed(rng):
    signal = np.full((2, 5000), np.nan, np.float32)
    prepared = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"], name="r"), recipe(missing="zeros"))
    assert len(prepared.rows) == 0
    assert [(n, stage) for n, stage, _ in prepared.errors] == [(0, "rows")]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is not known"),
        ({"fs": 0}, "fs"),
        ({"fs": "x"}, "fs has the wrong type"),
        ({"leads": []}, "leads: has no slots"),
        ({"leads": [["II"], []]}, "at least one lead name"),
        ({"dtype": "int8"}, "dtype int8"),
        ({"missing": "maybe"}, "missing maybe"),
        ({"window": {"kind": "piece"}}, "window.kind piece"),
        ({"window": {"samples": 5}}, "either samples or length_s"),
        ({"window": {"length_s": 0.0}}, "between 1 and"),
        ({"window": {"length_s": 1e12}}, "window|out of range"),
        ({"window": {"kind": "window", "overlap_s": 10.0}}, "overlap_s"),
        ({"window": {"kind": "beat", "before_s": 10.0}}, "before_s"),
        ({"scale": {"over": "dataset"}}, "one center and one spread per slot"),
        ({"bandpass": {"low_hz": 50.0}}, "low_hz"),
        ({"bandpass": {"high_hz": 300.0}}, r"high_hz.*250"),
        ({"bandpass": {"order": 9}}, "order"),
        ({"notch_hz": 400.0}, "notch_hz"),
    ],
)
def test_a_wrong_recipe_is_a_value_error_that_names_the_key(rng, change, message):
    with pytest.raises(ValueError, match=message):
        pqrst.prepare(record(rng), recipe(**change), [np.array([100])])


@pytest.mark.parametrize("key", ["fs", "leads", "gaps", "window", "scale", "bandpass", "version"])
def test_a_missing_key_is_named(rng, key):
    tree = copy.deepcopy(recipe())
    del tree[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        pqrst.prepare(record(rng), tree)


def test_centres_are_needed_one_array_per_record_and_near_the_signal(rng):
    r, how = record(rng), recipe(window=window("beat", 100))
    with pytest.raises(ValueError, match="centers"):
        pqrst.prepare(r, how)
    with pytest.raises(ValueError, match="centers"):
        pqrst.prepare([r, r], how, [np.array([5])])
    for far in (-201, 5200):
        with pytest.raises(ValueError, match="more than a window outside"):
            pqrst.prepare(r, how, [np.array([far])])
    assert len(pqrst.prepare(r, how, [np.array([], np.int64)]).rows) == 0


def test_errors_are_raised_in_order_or_listed(rng, tmp_path):
    bad, good = record(rng, leads=("X",)), record(rng)
    absent, short = tmp_path / "absent.hea", record(rng, n=20)
    with pytest.raises(FileNotFoundError, match=r"absent.hea"):
        pqrst.prepare([good, absent, bad], recipe(), n_threads=2)
    prepared = pqrst.prepare([bad, good, absent, short], recipe(), n_threads=2, skip_errors=True)
    assert list(prepared.record) == [1]
    assert [(number, stage) for number, stage, _ in prepared.errors] == [(0, "leads"), (2, "read"), (3, "filter")]


def test_float16_is_rounded_to_nearest_even_from_float32(rng):
    """Every pattern of interest: subnormals, ties, the largest."""
    values = np.concatenate([
        rng.normal(size=2000) * 10.0 ** rng.integers(-9, 4, 2000),
        np.arange(1, 40) * 2.0**-25, [65504, 65519.9], 1 + np.arange(64) * 2.0**-12,
    ]).astype(np.float32)  # fmt: skip
    signal = np.stack([values, -values])
    how = recipe(dtype="float16", bandpass=None, scale={"kind": "none"}, window=window("record", len(values)))
    rows = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"]), how).rows[0]
    np.testing.assert_array_equal(rows.view(np.uint16), signal.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize("value", [65520, -1e6])
def test_a_row_that_float16_cannot_hold_is_an_error_and_no_infinity(value):
    signal = np.zeros((2, 750), np.float32)
    signal[:, ::2] = 1
    signal[1, 300] = value  # in the second of three windows
    how = recipe(dtype="float16", bandpass=None, scale={"kind": "none"}, window=window("window", 250))
    prepared = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"]), how)
    assert prepared.index.tolist() == [0, 2]
    assert np.isfinite(prepared.rows).all()
    (problem,) = prepared.errors
    assert problem[1] == "rows" and "1 of 3 rows dropped: values that float16 cannot hold" in problem[2]


@pytest.mark.parametrize("gaps", [False, True])
def test_a_lead_that_never_changes_is_zeros_whether_or_not_it_has_gaps(rng, gaps):
    """Its filtered values are the echo of what lies around, which scaling would blow up."""
    signal = rng.normal(size=(2, 2500)).astype(np.float32)
    signal[1] = 0.25
    if gaps:
        signal[1, ::500] = np.nan  # one sample every two seconds
    prepared = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"]), recipe(window=window("record", 2500)))
    assert (prepared.rows[0, 1] == 0).all() and (prepared.rows[0, 0] != 0).any()
    assert any("lead V1 is flat" in text for _, _, text in prepared.warnings)


class Clears:
    """A path that empties the list it stands in when it is asked for its name."""

    def __init__(self, records, path):
        self.records, self.path = records, path

    def __fspath__(self):
        self.records.clear()
        return str(self.path)


def test_records_live_as_long_as_they_are_needed(rng, tmp_path):
    signal = rng.normal(size=(2, 5000)).astype(np.float32)
    expected = pqrst.prepare(pqrst.Record(signal, 250.0, ["II", "V1"]), recipe()).rows
    records = []
    records += [pqrst.Record(signal, 250.0, ["II", "V1"]), Clears(records, tmp_path / "absent")]
    prepared = pqrst.prepare(records, recipe(), skip_errors=True)
    assert records == []
    np.testing.assert_array_equal(prepared.rows, expected)
    assert len(prepared.errors) == 1


def test_a_record_of_an_odd_rate_is_one_problem_among_good_ones(rng):
    good = pqrst.Record(rng.normal(size=(2, 5000)).astype(np.float32), 250.0, ["II", "V1"])
    odd = pqrst.Record(good.signal, 1e13, ["II", "V1"])
    how = recipe(window=window("window", 500))
    prepared = pqrst.prepare([good, odd, good], how, skip_errors=True)
    assert sorted(set(prepared.record.tolist())) == [0, 2]
    assert [number for number, _, _ in prepared.errors] == [1]
    with pytest.raises(ValueError, match="fs_in 10000000000000: must be at most"):
        pqrst.prepare([good, odd], how)


@pytest.mark.parametrize("fs", [249.99999999999997, 250.00000001, 250.0001, 249.9999])
def test_a_rate_a_hair_off_a_fraction_is_taken_as_it(rng, fs):
    x = rng.normal(size=(2, 5000)).astype(np.float32)
    how = recipe(window=window("window", 500))
    odd, even = (pqrst.prepare(pqrst.Record(x, rate, ["II", "V1"]), how) for rate in (fs, 250.0))
    np.testing.assert_allclose(odd.rows, even.rows, atol=1e-4)  # the band-pass is that of the rate itself
    np.testing.assert_array_equal(odd.start, even.start)
    assert pqrst.n_rows(how, 5000, fs) == len(odd.rows)
    np.testing.assert_array_equal(pqrst.row_starts(how, 5000, fs), odd.start)


def test_a_rate_is_no_more_rounded_than_half_a_sample_of_drift(rng):
    # 499.3456789 Hz: after 600,000 samples, the nearest hundredth would be three samples off
    fs, n = 499.3456789, 600_000
    x = np.sin(2 * np.pi * 5 * np.arange(n) / fs)
    slow = pqrst.resample(x, fs, 100)
    t = np.arange(len(slow)) / 100
    assert np.abs(slow - np.sin(2 * np.pi * 5 * t))[100:-100].max() < 2 * np.pi * 5 * 0.5 / fs + 1e-3


def test_a_lead_with_its_sign_turned_is_turned_back(rng):
    x = rng.normal(size=(3, 5000)).astype(np.float32)
    how = recipe(leads=[["I"], ["aVR"], ["II"]], missing="error")
    expected = pqrst.prepare(pqrst.Record(x, 250.0, ["I", "aVR", "II"]), how)
    for name in ("-aVR", "Lead -AVR", "MDC_ECG_LEAD_-aVR"):
        record = pqrst.Record(x * [[1], [-1], [1]], 250.0, ["I", name, "II"], name="r")
        found = pqrst.prepare(record, how)
        np.testing.assert_array_equal(found.rows, expected.rows)
        plain = name.replace("-", "")
        turned = (0, "read", f"r: lead {name} is {plain} with its sign turned back")
        assert turned in found.warnings
        assert record.leads[1] == name
        np.testing.assert_array_equal(record.signal, (x * [[1], [-1], [1]]).astype(np.float32))
    assert pqrst.match_leads([["aVR"]], ["-aVR", "aVR"]) == [1]
    assert pqrst.match_leads([["aVR"]], ["-aVR"]) == [0]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Lead I (Einthoven)", "i"), ("MDC_ECG_LEAD_I", "i"), ("I (mV)", "i"), ("DI", "i"), ("DII", "ii"),
        ("DIII", "iii"), ("D3", "iii"), ("AVR", "avr"), ("-aVR", "-avr"), ("ECG [uV]", "ecg"), ("ecg_ii", "ii"),
        ("MDC_ECG_ELEC_POTL_V1", "v1"), ("EKG  lead V2 ", "v2"), ("(I)", "(i)"), ("", ""), ("I)", "i)"),
    ],
)  # fmt: skip
def test_all_spellings_of_a_lead_are_one_name(name, plain):
    assert pqrst.lead_name(name) == plain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gaps": {"max_s": np.nan}}, "gaps.max_s"),
        ({"gaps": {"max_fraction": np.nan}}, "gaps.max_fraction"),
        ({"gaps": {"max_fraction": 1.5}}, "gaps.max_fraction"),
        ({"notch_hz": np.nan}, "notch_hz"),
        ({"notch_hz": -50.0}, "notch_hz"),
        ({"scale": {"over": "dataset", "center": [np.nan, 0.0], "spread": [1.0, 1.0]}}, "scale.center"),
        ({"scale": {"over": "dataset", "center": [0.0, 0.0], "spread": [np.inf, 1.0]}}, "scale.spread"),
    ],
)
def test_a_recipe_with_numbers_that_mean_nothing_is_refused(rng, changes, words):
    record = pqrst.Record(rng.normal(size=(2, 5000)).astype(np.float32), 250.0, ["II", "V1"])
    with pytest.raises(ValueError, match=words):
        pqrst.prepare(record, recipe(**changes))


def test_a_spread_so_small_that_rows_overflow_is_an_error(rng):
    record = pqrst.Record(rng.normal(size=(2, 5000)).astype(np.float32), 250.0, ["II", "V1"])
    scale = {"over": "dataset", "center": [0.0, 0.0], "spread": [1e-300, 1.0]}
    prepared = pqrst.prepare(record, recipe(scale=scale), skip_errors=True)
    assert len(prepared.rows) == 0 and "values that float32 cannot hold" in prepared.errors[0][2]


def test_an_array_to_write_to_must_be_aligned(rng):
    record = pqrst.Record(rng.normal(size=(2, 5000)).astype(np.float32), 250.0, ["II", "V1"])
    n = pqrst.row_samples(recipe())
    room = np.zeros(4 * 2 * n + 1, np.uint8)[1:].view(np.float32).reshape(1, 2, n)
    with pytest.raises(ValueError, match="aligned"):
        pqrst.prepare(record, recipe(), out=room)


def test_a_masked_array_is_nothing_to_write_to_and_no_centres(rng):
    record = pqrst.Record(rng.normal(size=(2, 5000)).astype(np.float32), 250.0, ["II", "V1"])
    room = np.ma.zeros((1, 2, pqrst.row_samples(recipe())), np.float32)
    with pytest.raises(TypeError, match="out: is a masked array"):
        pqrst.prepare(record, recipe(), out=room)
    with pytest.raises(TypeError, match="centers: is a masked array"):
        pqrst.prepare(record, recipe(), [np.ma.masked_array([500], mask=[True])])


@pytest.mark.parametrize(
    ("records", "centers", "words"),
    [
        ((name for name in ["a", "b"]), None, "records: expected .* got generator"),
        (np.array(["a", "b"]), None, "records: expected .* got ndarray"),
        ([None], None, "records: expected .* got NoneType"),
        (["a"], (each for each in [[1]]), "centers: expected a list"),
        (["a"], np.array([1, 2]), "centers: expected a list"),
        (["a"], [np.array([0.5])], "centers: dtype float64"),
    ],
)
def test_arguments_of_another_kind_are_named(records, centers, words):
    with pytest.raises(TypeError, match=words):
        pqrst.prepare(records, recipe(), centers)


THREADS = """
import json, resource, sys, numpy, pqrst
tree = json.loads(sys.argv[1])
signals = numpy.random.default_rng(0).normal(size=(200, 2, 2500)).astype("f4")
records = [pqrst.Record(signal, 250.0, ["II", "V1"]) for signal in signals]
alone = pqrst.prepare(records, tree).rows
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)  # room for 25 stacks of 8 MiB
assert (pqrst.prepare(records, tree, n_threads=100).rows == alone).all()
print("same")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer needs all addresses")
def test_threads_that_cannot_be_started_are_done_without():
    command = [sys.executable, "-c", THREADS, json.dumps(recipe())]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "same\n"), run.stderr


@pytest.mark.parametrize("fs", [100.0, 250.0, 360.0, 499.5])
@pytest.mark.parametrize(("length_s", "overlap_s"), [(2.0, 0.0), (2.0, 0.333), (20.0, 0.333), (1.0, 0.9)])
def test_row_starts_are_where_prepare_cuts(rng, fs, length_s, overlap_s):
    window = {"kind": "window", "length_s": length_s, "overlap_s": overlap_s}
    tree = Recipe(fs=250, leads=[["II"]], bandpass=None, window=window).tree()
    for n_samples in (1, 499, 500, 501, 5000, 12345):
        record = pqrst.Record(rng.standard_normal((1, n_samples), np.float32), fs, ["II"])
        starts = pqrst.row_starts(tree, n_samples, fs)
        np.testing.assert_array_equal(starts, pqrst.prepare(record, tree).start)
        hop = round(length_s * 250) - round(overlap_s * 250)  # samples of a row, whatever the record's rate
        np.testing.assert_array_equal(starts, np.floor(np.arange(len(starts)) * hop * (fs / 250) + 1e-9))


def test_a_record_begins_at_its_first_sample_and_beats_have_no_starts():
    assert pqrst.row_starts(Recipe().tree(), 5000, 500.0).tolist() == [0]
    beats = Recipe(window={"kind": "beat", "samples": 187})
    with pytest.raises(ValueError, match="centres of beats"):
        pqrst.row_starts(beats.tree(), 5000, 500.0)
    assert pqrst.row_before(beats.tree()) == 93
    early = Recipe(fs=200, window={"kind": "beat", "samples": 187, "before_s": 0.1})
    assert pqrst.row_before(early.tree()) == 20

"""The signal kernels (bandpass, notch, resample, segment, zscore, minmax) against SciPy, NumPy and closed forms."""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from math import gcd
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.signal
from conftest import REPOSITORY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pqrst
from recipe import Recipe

LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 5000]  # around each lane and block border
LEADS = [1, 2, 3, 8, 12, 15]
ORDERS = [1, 2, 3, 4, 5, 6, 7, 8]
DTYPES = [np.float32, np.float64]
RATES = [(360, 500), (400, 500), (1000, 500), (500, 100), (128, 360), (257, 500), (300, 100)]

FLOAT32 = float(np.finfo(np.float32).eps)  # one rounding, relative: both sides work in float64
DESIGN = 1e-13  # coefficients of a design; they are below 4, and SciPy's own are right to some 1e-15
FILTER = 1e-11  # x max|x|, float64: coefficients differ by 1e-16, poles 0.003 from the unit circle amplify that
RESAMPLED = {np.float64: 1e-11, np.float32: 1e-6}  # x max|x|: computed in the array's own type, up to 201 taps
SCALED = 1e-13  # float64, two orders of summation

KERNELS = {  # name -> a call that is valid for any float array of at least 100 samples
    "bandpass": lambda x: pqrst.bandpass(x, 360, 0.5, 40),
    "notch": lambda x: pqrst.notch(x, 360, 50),
    "resample": lambda x: pqrst.resample(x, 360, 250),
    "zscore": pqrst.zscore,
    "minmax": pqrst.minmax,
}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def butter(order, low_hz, high_hz, fs):
    return scipy.signal.butter(order, [low_hz, high_hz], "bandpass", fs=fs, output="sos")


def walk(rng, *shape):
    """Noise that wanders like a baseline, within -1..1."""
    x = rng.standard_normal(shape).cumsum(-1)
    return x / np.abs(x).max()


def ratio(fs_in, fs_out):
    common = gcd(fs_in, fs_out)
    return fs_out // common, fs_in // common


# -------------------------------------------------------------------------------------------------- levels

LEVELS = """
import hashlib, json, sys
import numpy as np
import pqrst
rng = np.random.default_rng(0)
print(pqrst.simd())
for dtype in (np.float32, np.float64):
    for n_leads, n_samples in ((1, 55), (2, 64), (3, 1001), (5, 130), (8, 5000), (12, 999), (15, 333), (2, 20011)):
        x = (rng.standard_normal((n_leads, n_samples)).cumsum(1) * 0.1 + 3).astype(dtype)
        results = [pqrst.bandpass(x, 360, 0.5, 40, order) for order in range(1, 9)]
        results += [pqrst.notch(x, 360, 50), pqrst.zscore(x), pqrst.minmax(x), pqrst.zscore(x * 1e30)]
        for rates in ((360, 500), (400, 500), (1000, 500), (500, 100), (257, 500), (1000, 50), (499.348, 500)):
            results.append(pqrst.resample(x, *rates))
        x[0, 7] = np.nan
        results.append(np.nan_to_num(pqrst.zscore(x)))
        records = [pqrst.Record(x, 360, [f"l{i}" for i in range(n_leads)])] * 3
        for scale in ("zscore", "minmax"):
            for name in ("float16", "float32"):
                recipe = json.loads(sys.argv[1])
                recipe |= {"leads": [[f"l{i}"] for i in range(n_leads)], "dtype": name}
                recipe |= {"gaps": {"max_s": 1, "max_fraction": 1}}
                recipe["scale"]["kind"] = scale
                results.append(pqrst.prepare(records, recipe).rows)
        rows = np.abs(x[None].astype(np.float32)) % 7
        for name in (np.float16, np.float32):
            amounts = {"noise": 0.1, "gain": 0.2, "wander": 0.3, "shift_s": 0.01, "lead_subset": 0.9}
            ranges = [[0, n_samples]]
            results.append(pqrst.augment(np.nan_to_num(rows).astype(name), [5], ranges, 360, 3, 2, **amounts))
        for result in results:
            print(hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest()[:16])
"""


def levels_here():
    """Those that this machine and build have, by the message that names them."""
    message = run_level("none").stderr
    assert "ImportError: PQRST_SIMD=none: this machine and build have " in message
    return message.strip().splitlines()[-1].split(" have ")[1].split(", ")


def run_level(level):
    recipe = Recipe(fs=250.0).tree()
    command = [sys.executable, "-c", LEVELS, json.dumps(recipe)]
    environment = {**os.environ, "PQRST_SIMD": level}
    here = Path(pqrst.__file__).parent  # the same build
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=here, timeout=300)


def test_every_simd_level_runs_when_forced_and_gives_the_same_bits():
    first, *others = levels_here()
    assert pqrst.simd() == os.environ.get("PQRST_SIMD", first)
    expected = run_level(first).stdout.splitlines()
    assert expected[0] == first and len(expected) > 300
    for level in others:
        result = run_level(level).stdout.splitlines()
        assert result[0] == level
        assert result[1:] == expected[1:]


def hashes(folder, compiler, *emulator):
    """The level and the lines of tests/levels.cpp: hashes of what every design, kernel and R-peak feature puts out."""
    sources = [REPOSITORY / "tests/levels.cpp", REPOSITORY / "csrc/kernels.cpp", REPOSITORY / "csrc/rpeaks.cpp"]
    flags = ["-O2", "-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    run = partial(subprocess.run, check=True, capture_output=True, text=True, timeout=500)
    run([*compiler, *flags, *sources, "-o", folder / compiler[0].replace("/", "-")])
    result = run([*emulator, folder / compiler[0].replace("/", "-")])
    return result.stderr.strip(), result.stdout.splitlines()


@pytest.fixture(scope="module")
def hashes_here(tmp_path_factory):
    if not shutil.which("c++"):
        pytest.skip("needs a C++ compiler")
    lines = hashes(tmp_path_factory.mktemp("here"), ["c++"])[1]
    assert len(lines) > 200
    return lines


def test_neon_gives_the_same_bits_as_this_machine(tmp_path, hashes_here):
    """In an emulator of a 64-bit ARM."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64-static")
    assert hashes(tmp_path, [compiler, "-static"], emulator) == ("neon", hashes_here)


@pytest.mark.slow
def test_another_c_library_gives_the_same_bits(tmp_path, hashes_here):
    """With musl and Clang, neither of which made the extension under test: sines and logarithms are ours."""
    pytest.importorskip("ziglang", reason="needs ziglang, a compiler for other C libraries")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("runs on x86-64 Linux")
    compiler = [sys.executable, "-m", "ziglang", "c++", "-target", "x86_64-linux-musl"]
    assert hashes(tmp_path, compiler)[1] == hashes_here


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_sines_logarithms_and_roots_are_right_to_two_units_in_the_last_place(rng, tmp_path):
    program = tmp_path / "functions"
    subprocess.run(
        ["c++", "-std=c++17", "-ffp-contract=off", REPOSITORY / "tests/functions.cpp", "-o", program], check=True
    )
    near = np.ldexp(rng.uniform(1, 2, 300), rng.integers(-60, 8, 300))
    x = np.concatenate([near, -near, np.arange(-16, 17) / 4, 1 + near / 2**30, [1e-300, 5e-324, 1e150]])
    lines = "\n".join(value.hex() for value in x.tolist())
    printed = subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == len(x)
    with mpmath.workdps(60):
        for value, line in zip(x.tolist(), printed):
            exact = mpmath.mpf(value)
            truths = [mpmath.sinpi(exact), mpmath.cospi(exact)]
            truths += [mpmath.log(abs(exact)) if value else -mpmath.inf, mpmath.re(mpmath.sqrt(mpmath.mpc(exact, 1)))]
            for truth, result in zip(truths, map(float.fromhex, line.split())):
                assert result == truth or abs(result - truth) <= 2 * math.ulp(float(truth)), (value, truth, result)


# ------------------------------------------------------------------------------------------------ bandpass


def designed(order, low_hz, high_hz, fs):
    """The sections as they run: zeros at 1 with the lower poles, at -1 with the upper ones, the gain in front."""
    poles, gain, _ = pqrst._bandpass_design(order, low_hz, high_hz, fs)
    half = order // 2
    zeros = [[1, -2, 1]] * half + [[1, 0, -1]] * (order % 2) + [[1, 2, 1]] * half
    sections = np.array([[*b, 1, *a] for b, a in zip(zeros, poles, strict=True)])
    sections[0, :3] *= gain
    return sections


def by_pole(sections):
    return sections[np.lexsort(sections[:, 4:].T), 4:]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fs", [100, 128, 257, 360, 500, 1000])
def test_bandpass_design_equals_scipy(fs, order):
    for low_hz in (0.05, 0.5, 1, 5):
        for high_hz in (15, 40, 47):
            expected = butter(order, low_hz, high_hz, fs)
            poles, gain, padding = pqrst._bandpass_design(order, low_hz, high_hz, fs)
            np.testing.assert_allclose(by_pole(designed(order, low_hz, high_hz, fs)), by_pole(expected), atol=DESIGN)
            np.testing.assert_allclose(gain / expected[0, 0], 1, atol=DESIGN)
            assert len(poles) == order
            assert padding == 3 * (2 * order + 1)


@pytest.mark.parametrize("order", ORDERS)
def test_bandpass_sections_have_scipys_response(order):
    for low_hz, high_hz in [(5, 45), (0.5, 40), (20, 30)]:
        w, expected = scipy.signal.sosfreqz(butter(order, low_hz, high_hz, 100), 64)
        response = scipy.signal.sosfreqz(designed(order, low_hz, high_hz, 100), w)[1]
        np.testing.assert_allclose(response, expected, atol=1e-11)


@pytest.mark.parametrize("order", ORDERS)
def test_a_pass_starts_in_the_state_of_sosfilt_zi(order):
    """All sections at rest, and the first remembers its input."""
    sections = designed(order, 5, 40, 100)
    b1, b2 = sections[0, 1:3]
    expected = np.zeros((order, 2))
    expected[0] = b1 + b2, b2
    np.testing.assert_allclose(scipy.signal.sosfilt_zi(sections), expected, atol=DESIGN)
    assert (pqrst.bandpass(np.full(500, 1e6), 100, 5, 40, order) == 0).all()


@pytest.mark.parametrize("n_leads", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("kernel", ["bandpass", "notch"])
def test_long_signals_equal_scipy_at_the_borders_of_a_chunk(rng, n_leads, kernel):
    """The extended signal is kept 96 Ki values at a time, 12, 24 or 48 Ki frames: see chunk_values."""
    if kernel == "bandpass":
        sections, padding = butter(3, 0.5, 40, 360), 21
    else:
        sections, padding = scipy.signal.tf2sos(*scipy.signal.iirnotch(50, 30, 360)), 9
    for n_frames in (12288, 24576, 49152, 2 * 49152):
        for n_samples in range(n_frames - 2 * padding - 1, n_frames + padding + 2, padding):
            x = walk(rng, n_leads, n_samples)
            expected = scipy.signal.sosfiltfilt(sections, x)
            np.testing.assert_allclose(KERNELS[kernel](x), expected, rtol=0, atol=FILTER)
            in_float = KERNELS[kernel](x.astype(np.float32))
            np.testing.assert_allclose(in_float, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fs", [100, 128, 257, 360, 500, 1000])
def test_bandpass_equals_scipy(rng, fs, order):
    x = walk(rng, 2, 5000)
    for low_hz, high_hz in [(0.5, 40), (0.67, 30), (1, 47), (5, 15)]:
        expected = scipy.signal.sosfiltfilt(butter(order, low_hz, high_hz, fs), x)
        np.testing.assert_allclose(pqrst.bandpass(x, fs, low_hz, high_hz, order), expected, rtol=0, atol=FILTER)


@each_dtype
@pytest.mark.parametrize("n_leads", LEADS)
def test_bandpass_equals_scipy_at_every_length(rng, n_leads, dtype):
    sections = butter(3, 0.5, 40, 360)
    for n_samples in [n for n in LENGTHS if n > 21] + [22, 23, 24, 42, 43, 44]:
        x = walk(rng, n_leads, n_samples).astype(dtype)
        result = pqrst.bandpass(x, 360, 0.5, 40)
        expected = scipy.signal.sosfiltfilt(sections, x.astype(np.float64))
        assert result.dtype == dtype and result.shape == x.shape
        rounding = FLOAT32 if dtype == np.float32 else 0
        np.testing.assert_allclose(result, expected, rtol=rounding, atol=FILTER)


def exact_bandpass(x, fs, low_hz, high_hz, order):
    """The filter in 40 digits, from the textbook: prototype, band-pass transform, bilinear transform, recursion."""
    with mpmath.workdps(40):
        low, high = (mpmath.tan(mpmath.pi * mpmath.mpf(f) / fs) for f in (low_hz, high_hz))
        poles = []
        for k in range(order):
            p = (high - low) * mpmath.expjpi(mpmath.mpf(order + 1 + 2 * k) / (2 * order))
            root = mpmath.sqrt(p * p - 4 * low * high)
            poles += [(p + root) / 2, (p - root) / 2]
        gain = mpmath.re((high - low) ** order / mpmath.fprod(1 - s for s in poles))
        digital = [(1 + s) / (1 - s) for s in poles]
        denominators = [(-2 * z.real, abs(z) ** 2) for z in digital if z.imag > 1e-25]
        real = [z.real for z in digital if abs(z.imag) <= 1e-25]
        if real:
            denominators.append((-real[0] - real[1], real[0] * real[1]))
        padding = 3 * (2 * order + 1)
        x = [mpmath.mpf(float(value)) for value in x]
        y = [2 * x[0] - value for value in x[padding:0:-1]] + x
        y += [2 * x[-1] - value for value in x[-2 : -2 - padding : -1]]
        for _ in range(2):  # every section has a zero at 0 Hz: in the steady state only the first has any input
            state = [[-y[0] * (i == 0)] * 2 for i in range(order)]
            for t, value in enumerate(y):
                for z, (a1, a2) in zip(state, denominators, strict=True):  # each (1 - 1/z^2) / (1 + a1/z + a2/z^2)
                    out = value + z[0]
                    z[0] = z[1] - a1 * out
                    z[1] = -value - a2 * out
                    value = out
                y[t] = gain * value
            y.reverse()
        return np.array([float(value) for value in y[padding:-padding]])


@pytest.mark.parametrize("order", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    ("fs", "low_hz", "high_hz"),
    [(1000, 0.05, 20), (1000, 0.05, 45), (1000, 0.05, 150), (500, 0.05, 40), (360, 0.05, 175), (360, 5, 15)],
)
def test_bandpass_is_the_exact_filter_also_where_scipy_is_not(rng, fs, low_hz, high_hz, order):
    """At 0.05 Hz SciPy's initial state is off by up to 1e-9, so the truth is mpmath's."""
    x = walk(rng, 600)
    exact = exact_bandpass(x, fs, low_hz, high_hz, order)
    result = pqrst.bandpass(x, fs, low_hz, high_hz, order)
    np.testing.assert_allclose(result, exact, rtol=0, atol=FILTER)


@pytest.mark.parametrize("order", ORDERS)
def test_bandpass_names_the_length_it_needs(order):
    needed = 3 * (2 * order + 1) + 1
    with pytest.raises(ValueError, match=f"x: has {needed - 1} samples, this filter needs at least {needed}"):
        pqrst.bandpass(np.ones(needed - 1), 100, 1, 40, order)
    assert pqrst.bandpass(np.ones(needed), 100, 1, 40, order).shape == (needed,)


def test_bandpass_of_an_impulse_is_symmetric():
    x = np.zeros(20001)  # 20 s on either side: the 0.5 Hz edge has rung out at the ends
    x[10000] = 1
    y = pqrst.bandpass(x, 500, 0.5, 40)
    assert np.argmax(y) == 10000
    np.testing.assert_allclose(y, y[::-1], rtol=0, atol=FILTER)


def test_bandpass_passes_its_band_and_stops_the_rest():
    t = np.arange(20000) / 500
    middle = slice(5000, 15000)
    for hz, gain in [(0.05, 0), (10, 1), (150, 0)]:
        tone = np.sin(2 * np.pi * hz * t)
        y = pqrst.bandpass(tone, 500, 0.5, 40)
        np.testing.assert_allclose(y[middle], gain * tone[middle], atol=1e-3)


def test_bandpass_halves_the_amplitude_at_its_edges():
    t = np.arange(40000) / 500
    tone = np.sin(2 * np.pi * 40 * t)
    y = pqrst.bandpass(tone, 500, 0.5, 40)[10000:30000]
    np.testing.assert_allclose(y, 0.5 * tone[10000:30000], atol=1e-6)  # -3 dB in each pass


def test_bandpass_of_a_flat_signal_is_zero():
    for value in (0.0, 5.0, -32768.0):
        y = pqrst.bandpass(np.full((2, 1000), value), 500, 0.5, 40)
        np.testing.assert_allclose(y, 0, atol=FILTER * max(abs(value), 1))


def test_a_band_that_float64_cannot_hold_is_refused():
    for low_hz, high_hz, order in [
        (1e-10, 40, 3),
        (1e-300, 40, 1),
        (10, 10 + 1e-13, 4),
        (10, 180 - 1e-13, 4),
    ]:
        with pytest.raises(ValueError, match=r"low_hz .*: too close to 0"):
            pqrst.bandpass(np.ones(1000), 360, low_hz, high_hz, order)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 40, 3), "fs 0: must be a finite rate"),
        ((-360, 1, 40, 3), "fs -360: must be"),
        ((np.nan, 1, 40, 3), "fs -?nan: must be"),
        ((np.inf, 1, 40, 3), "fs inf: must be"),
        ((100, 0, 40, 3), "low_hz 0: must be above 0"),
        ((100, -1, 40, 3), "low_hz -1: must be above 0"),
        ((100, np.nan, 40, 3), "low_hz -?nan: must be above 0"),
        ((100, 40, 40, 3), "low_hz 40: must be below high_hz = 40"),
        ((100, 45, 40, 3), "low_hz 45: must be below high_hz = 40"),
        ((100, 1, 60, 3), "high_hz 60: must be below fs / 2 = 50"),
        ((100, 1, 50, 3), "high_hz 50: must be below fs / 2 = 50"),
        ((100, 1, np.nan, 3), "high_hz -?nan: must be below fs / 2 = 50"),
        ((100, 1, 40, 0), "order 0: must be from 1 to 8"),
        ((100, 1, 40, -2), "order -2: must be from 1 to 8"),
        ((100, 1, 40, 9), "order 9: must be from 1 to 8"),
    ],
)
def test_bandpass_refuses_settings_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        pqrst.bandpass(np.ones(1000), *arguments)


# --------------------------------------------------------------------------------------------------- notch


@pytest.mark.parametrize("quality", [5, 30, 100])
@pytest.mark.parametrize("fs", [128, 250, 360, 500, 1000])
def test_notch_equals_scipy(rng, fs, quality):
    x = walk(rng, 2, 5000)
    for notch_hz in (16.7, 50, 60):
        expected = scipy.signal.filtfilt(*scipy.signal.iirnotch(notch_hz, quality, fs), x)
        np.testing.assert_allclose(pqrst.notch(x, fs, notch_hz, quality), expected, rtol=0, atol=FILTER)


@each_dtype
@pytest.mark.parametrize("n_leads", LEADS)
def test_notch_equals_scipy_at_every_length(rng, n_leads, dtype):
    b, a = scipy.signal.iirnotch(50, 30, 360)
    for n_samples in [n for n in LENGTHS if n > 9] + [10, 11, 18, 19, 20]:
        x = walk(rng, n_leads, n_samples).astype(dtype)
        result = pqrst.notch(x, 360, 50)
        assert result.dtype == dtype and result.shape == x.shape
        rounding = FLOAT32 if dtype == np.float32 else 0
        expected = scipy.signal.filtfilt(b, a, x.astype(np.float64))
        np.testing.assert_allclose(result, expected, rtol=rounding, atol=FILTER)


def test_notch_removes_its_tone_and_keeps_a_constant():
    t = np.arange(20000) / 500
    y = pqrst.notch(3 + np.sin(2 * np.pi * 50 * t), 500, 50)
    np.testing.assert_allclose(y[5000:-5000], 3, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 50), "fs 0: must be"),
        ((np.inf, 50), "fs inf: must be"),
        ((360, 0), "notch_hz 0: must be above 0"),
        ((360, np.nan), "notch_hz -?nan: must be above 0"),
        ((100, 50), "notch_hz 50: must be below fs / 2 = 50"),
        ((360, 50, 0), "quality 0: must be finite and above"),
        ((360, 90, 0.5), r"quality 0.5: must be finite and above notch_hz / \(fs / 2\) = 0.5"),
        ((360, 50, np.inf), "quality inf: must be finite"),
        ((360, 50, np.nan), "quality -?nan: must be finite"),
        ((360, 50, 1e17), "quality 1e.17: too high"),
    ],
)
def test_notch_refuses_settings_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        pqrst.notch(np.ones(1000), *arguments)


def test_notch_names_the_length_it_needs():
    with pytest.raises(ValueError, match="x: has 9 samples, this filter needs at least 10"):
        pqrst.notch(np.ones(9), 360, 50)


# ------------------------------------------------------------------------------------------------ resample


@pytest.mark.parametrize(("fs_in", "fs_out"), [*RATES, (1, 10), (7, 3)])
def test_resampling_filter_equals_firwin(fs_in, fs_out):
    up, down = ratio(fs_in, fs_out)
    longest = max(up, down)
    expected = scipy.signal.firwin(20 * longest + 1, 1 / longest, window=("kaiser", 5.0))
    np.testing.assert_allclose(pqrst._resampling_taps(up, down) / up, expected, rtol=0, atol=DESIGN)


@each_dtype
@pytest.mark.parametrize(("fs_in", "fs_out"), RATES)
def test_resample_equals_scipy_at_every_length(rng, fs_in, fs_out, dtype):
    up, down = ratio(fs_in, fs_out)
    for n_samples in LENGTHS:
        x = walk(rng, 2, n_samples).astype(dtype)
        result = pqrst.resample(x, fs_in, fs_out)
        expected = scipy.signal.resample_poly(x.astype(np.float64), up, down, axis=1)
        assert result.dtype == dtype and result.shape == (2, -(-n_samples * fs_out // fs_in))
        np.testing.assert_allclose(result, expected, rtol=0, atol=RESAMPLED[dtype])


@each_dtype
@pytest.mark.parametrize("n_leads", LEADS)
def test_resample_equals_scipy_for_any_number_of_leads(rng, n_leads, dtype):
    x = walk(rng, n_leads, 777).astype(dtype)
    expected = scipy.signal.resample_poly(x.astype(np.float64), 25, 18, axis=1)
    np.testing.assert_allclose(pqrst.resample(x, 360, 500), expected, rtol=0, atol=RESAMPLED[dtype])


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 400), st.sampled_from(DTYPES), st.integers(0, 9))
def test_resample_equals_scipy_for_random_ratios(up, down, n_samples, dtype, seed):
    x = np.random.default_rng(seed).uniform(-1, 1, n_samples).astype(dtype)
    expected = scipy.signal.resample_poly(x.astype(np.float64), up, down)
    np.testing.assert_allclose(pqrst.resample(x, down, up), expected, rtol=0, atol=RESAMPLED[dtype])


def test_resample_to_an_equal_rate_copies(rng):
    x = rng.standard_normal((2, 50)).astype(np.float32)
    for fs in (360, 499.348, np.pi, Fraction(1000, 3)):  # no fraction needed
        y = pqrst.resample(x, fs, fs)
        np.testing.assert_array_equal(y, x)
        assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(pqrst.resample(x, 360, 360.0), x)
    np.testing.assert_array_equal(pqrst.resample(x, Fraction(999, 2), 499.5), x)


def test_rates_are_taken_as_the_fractions_they_are(rng):
    x = rng.standard_normal(2000)
    cases = [(15.5, 31, Fraction(2)), (499.348, 500, Fraction(500000, 499348)), (360, 1000 / 3, Fraction(1000, 1080))]
    for fs_in, fs_out, exact in cases:
        expected = scipy.signal.resample_poly(x, exact.numerator, exact.denominator)
        np.testing.assert_allclose(pqrst.resample(x, fs_in, fs_out), expected, rtol=0, atol=1e-11 * np.abs(x).max())
    same = pqrst.resample(x, 360, 500)
    for fs_in, fs_out in [(360.0, 500.0), (Fraction(360), Fraction(500)), (np.int64(360), np.float32(500)), (36, 50)]:
        np.testing.assert_array_equal(pqrst.resample(x, fs_in, fs_out), same)
    twice = pqrst.resample(x, Fraction(1, 123457), Fraction(2, 123457))  # beyond what a float could tell
    np.testing.assert_array_equal(twice, pqrst.resample(x, 1, 2))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10_000_000), st.integers(1, 10_000))
@example(499_348, 1000)
@example(9_999_999, 10_000)
def test_every_rate_with_a_denominator_up_to_10000_is_recognised(numerator, denominator):
    rate = Fraction(numerator, denominator)
    x = np.array([1.0, 2.0, 3.0])
    exactly = pqrst.resample(x, rate, rate * Fraction(3, 2))
    np.testing.assert_array_equal(pqrst.resample(x, numerator / denominator, rate * Fraction(3, 2)), exactly)


def test_resample_keeps_a_slow_tone_where_it_is():
    fs_in, fs_out = 360, 500
    y = pqrst.resample(np.sin(2 * np.pi * 5 * np.arange(3600) / fs_in), fs_in, fs_out)
    expected = np.sin(2 * np.pi * 5 * np.arange(y.size) / fs_out)
    np.testing.assert_allclose(y[500:-500], expected[500:-500], atol=5e-3)  # the pass band's ripple


def test_resample_removes_a_tone_above_the_new_nyquist_frequency():
    y = pqrst.resample(np.sin(2 * np.pi * 80 * np.arange(5000) / 500), 500, 100)
    assert np.abs(y[100:-100]).max() < 3e-3  # the window's stop band, -50 dB


@pytest.mark.parametrize(
    ("fs_in", "fs_out", "message"),
    [
        (0, 500, "fs_in 0: must be a finite rate"),
        (360, 0, "fs_out 0: must be"),
        (360, -500, "fs_out -500: must be"),
        (np.nan, 500, "fs_in -?nan: must be"),
        (360, np.inf, "fs_out inf: must be"),
        (0, 0, "fs_in 0: must be"),
        (np.inf, np.inf, "fs_in inf: must be"),
        (Fraction(-1, 2), 500, "fs_in -0.5: must be"),
        (360, np.pi, "fs_out 3.14159265358979: is no fraction with a denominator up to 10000"),
        (1e-5, 500, "fs_in 1e-05: is no fraction"),
        (360, 1e300, "fs_out 1e.300: must be at most 1000000000000 Hz"),
        (360, 10**30, "fs_out 1e.30: numerator and denominator must be below"),
        (1, 10**9, "ratio is 1000000000 / 1, both numbers must be at most 1048576"),
        (1, 2**63 - 1, "x: 100 samples x 9223372036854775807 / 1 is more than fits an array"),
        (Fraction(1, 2**62), 2**62, "their ratio needs numbers above 2.63"),
    ],
)
def test_resample_refuses_rates_by_name(fs_in, fs_out, message):
    with pytest.raises(ValueError, match=message):
        pqrst.resample(np.ones(100), fs_in, fs_out)


@pytest.mark.parametrize("fs", [None, "360", [360], 360j])
def test_a_rate_that_is_no_number_is_a_type_error(fs):
    with pytest.raises(TypeError, match="fs_out"):
        pqrst.resample(np.ones(100), 360, fs)
    with pytest.raises(TypeError, match="fs_in"):
        pqrst.resample(np.ones(100), fs, fs)


# ------------------------------------------------------------------------------------------------- segment


def windows(x, centers, length, before):
    samples = np.asarray(centers, dtype=np.int64)[:, None] - before + np.arange(length)  # (N, length)
    return np.moveaxis(x[:, np.clip(samples, 0, x.shape[1] - 1)], 0, 1)  # (N, L, length)


@each_dtype
@pytest.mark.parametrize("n_leads", LEADS)
def test_segment_equals_indexing_with_repeated_edges(rng, n_leads, dtype):
    for n_samples in LENGTHS:
        x = rng.standard_normal((n_leads, n_samples)).astype(dtype)
        for length in (1, 2, 7, 64):
            centers = rng.integers(-length, n_samples + length, 20)
            for before in (0, length // 2, length):
                result = pqrst.segment(x, centers, length, before)
                assert result.dtype == dtype
                np.testing.assert_array_equal(result, windows(x, centers, length, before))
            np.testing.assert_array_equal(pqrst.segment(x, centers, length), windows(x, centers, length, length // 2))


def test_segment_of_no_centers_is_empty(rng):
    for centers in ([], np.array([], np.int64), ()):
        assert pqrst.segment(rng.standard_normal((3, 100)), centers, 20).shape == (0, 3, 20)


def test_segment_takes_any_integer_centers(rng):
    x = rng.standard_normal((2, 100))
    expected = windows(x, [10, 50], 8, 4)
    for centers in ([10, 50], np.array([10, 50], np.int16), np.array([10, 50], np.uint32), np.array([10, 0, 50])[::2]):
        np.testing.assert_array_equal(pqrst.segment(x, centers, 8), expected)


@pytest.mark.parametrize("centers", [[1.0], [True], ["a"], [None], np.array([2**64 - 5], np.uint64)])
def test_centers_that_are_no_integers_are_a_type_error(centers):
    with pytest.raises(TypeError, match=r"centers: dtype .*, expected int64"):
        pqrst.segment(np.ones((1, 100)), centers, 10)


@pytest.mark.parametrize(
    ("centers", "length", "before", "message"),
    [
        ([5], 0, None, "length 0: must be at least 1"),
        ([5], -3, None, "length -3: must be at least 1"),
        ([5], 10, -1, "before -1: must be from 0 to length = 10"),
        ([5], 10, 11, "before 11: must be from 0 to length = 10"),
        ([5, -11], 10, None, r"centers\[1\] -11: more than one window \(length 10\) outside the signal, 0 .. 99"),
        ([5, 110], 10, None, r"centers\[1\] 110: more than one window"),
        ([-(2**63)], 10, None, r"centers\[0\] -9223372036854775808: more than one window"),
        ([2**63 - 1], 10, None, r"centers\[0\] 9223372036854775807: more than one window"),
        ([[5]], 10, None, r"centers: expected shape \(N,\), got 2 dimensions"),
        (5, 10, None, r"centers: expected shape \(N,\), got 0 dimensions"),
        ([5], 2**62, None, "is more than fits an array"),
        ([], 2**62, None, "is more than fits an array"),
    ],
)
def test_segment_refuses_arguments_by_name(centers, length, before, message):
    with pytest.raises(ValueError, match=message):
        pqrst.segment(np.ones((2, 100)), centers, length, before)


def test_segment_takes_two_dimensions_only():
    for x in (np.ones(100), np.ones((1, 2, 100)), np.float64(1)):
        with pytest.raises(ValueError, match=r"x: expected shape \(L, T\)"):
            pqrst.segment(x, [5], 10)
    with pytest.raises(ValueError, match="x: has no leads"):
        pqrst.segment(np.ones((0, 100)), [5], 10)
    with pytest.raises(ValueError, match="x: has no samples"):
        pqrst.segment(np.ones((2, 0)), [], 10)


# ------------------------------------------------------------------------------------------ zscore, minmax


@each_dtype
@pytest.mark.parametrize("n_leads", LEADS)
def test_zscore_and_minmax_equal_numpy(rng, n_leads, dtype):
    rounding = FLOAT32 if dtype == np.float32 else 0
    for n_samples in [n for n in LENGTHS if n > 1]:
        x = (3 + 2 * rng.standard_normal((n_leads, n_samples))).astype(dtype)
        wide = x.astype(np.float64)
        low, high = wide.min(-1, keepdims=True), wide.max(-1, keepdims=True)
        # divided by the spread: a row of two samples may vary little about 3
        atol = SCALED * 3 / wide.std(-1).min()
        expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
        np.testing.assert_allclose(pqrst.zscore(x), expected, rtol=rounding, atol=atol)
        np.testing.assert_allclose(pqrst.minmax(x), (wide - low) / (high - low), rtol=rounding, atol=SCALED)
        assert pqrst.zscore(x).dtype == pqrst.minmax(x).dtype == dtype


@pytest.mark.parametrize("function", [pqrst.zscore, pqrst.minmax])
def test_scaling_works_over_the_last_axis_of_any_rank(rng, function):
    x = rng.standard_normal((2, 3, 4, 50)).astype(np.float32)
    flat = np.stack([function(row) for row in x.reshape(-1, 50)])
    np.testing.assert_array_equal(function(x), flat.reshape(x.shape))
    assert function(np.ones((0, 3, 50))).shape == (0, 3, 50)  # no beats: nothing to scale
    with pytest.raises(ValueError, match="x: is a single number"):
        function(np.float64(1))


@pytest.mark.parametrize("function", [pqrst.zscore, pqrst.minmax])
@each_dtype
def test_a_constant_row_gives_zeros(function, dtype):
    for value in (0, 0.1, -32768, 1e30, 1e-30):
        for n_samples in LENGTHS:
            x = np.full((2, n_samples), value, dtype)
            np.testing.assert_array_equal(function(x), np.zeros_like(x))


@pytest.mark.parametrize("function", [pqrst.zscore, pqrst.minmax])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_dtype
def test_a_row_with_nan_or_infinity_becomes_nan_and_no_other(rng, function, bad, dtype):
    x = rng.standard_normal((3, 100)).astype(dtype)
    clean = function(x)
    for place in (0, 1, 50, 99):
        broken = x.copy()
        broken[1, place] = bad
        result = function(broken)
        assert np.isnan(result[1]).all()
        np.testing.assert_array_equal(result[[0, 2]], clean[[0, 2]])
    assert np.isnan(function(np.full((2, 9), bad, dtype))).all()


finite_rows = hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=300, deadline=None)
@given(finite_rows)
@example(np.array([0.0, 1e-200, 0.0]))
@example(np.array([-1.7e308, 1.7e308]))
@example(np.array([0.0, 5e-324]))
@example(np.array([1.0, 1.0, 1.0000000000000002]))
def test_scaling_of_any_finite_row_is_finite_and_right(x):
    z, unit = pqrst.zscore(x), pqrst.minmax(x)
    with mpmath.workdps(700):  # holds 1.7e308 and 5e-324 in one sum
        exact = [mpmath.mpf(float(value)) for value in x]
        mean = mpmath.fsum(exact) / len(exact)
        deviation = mpmath.sqrt(mpmath.fsum((value - mean) ** 2 for value in exact) / len(exact))
        size = max(exact) - min(exact)
        expected_z = [float((value - mean) / deviation) if size else 0.0 for value in exact]
        expected_unit = [float((value - min(exact)) / size) if size else 0.0 for value in exact]
    np.testing.assert_allclose(z, expected_z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(unit, expected_unit, rtol=0, atol=1e-12)
    assert unit.min() == 0 and (unit.max() == 1 or not size)


def test_zscore_holds_on_a_large_offset(rng):
    x = rng.standard_normal(5000)
    shifted = x + 2.0**33  # 1e10: what is left of x are 20 bits; the mean must not lose more
    left = shifted - 2.0**33  # exact
    np.testing.assert_allclose(pqrst.zscore(shifted), pqrst.zscore(left), rtol=0, atol=SCALED)


# ------------------------------------------------------------------------------------ what all kernels keep


@each_kernel
@each_dtype
def test_a_lead_does_not_depend_on_its_neighbours(rng, kernel, dtype):
    x = rng.standard_normal((15, 501)).astype(dtype)
    whole = kernel(x)
    for lead in range(15):
        np.testing.assert_array_equal(kernel(x[lead]), whole[lead])
    for n_leads in LEADS:
        np.testing.assert_array_equal(kernel(x[-n_leads:]), whole[-n_leads:])


@each_kernel
@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_lead(rng, kernel, dtype, bad):
    x = rng.standard_normal((5, 300)).astype(dtype)
    clean = kernel(x)
    x[2, 150] = bad
    result = kernel(x)
    assert not np.isfinite(result[2]).all()
    np.testing.assert_array_equal(result[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


@pytest.mark.parametrize("fs_in, fs_out", RATES)
def test_nan_reaches_a_few_samples_through_resample(rng, fs_in, fs_out):
    x = rng.standard_normal(2000)
    clean = pqrst.resample(x, fs_in, fs_out)
    x[1000] = np.nan
    result = pqrst.resample(x, fs_in, fs_out)
    hit = np.flatnonzero(np.isnan(result))
    reach = 10 * max(1, fs_out / fs_in) + 6  # ten samples of the lower rate, and outputs computed together
    assert len(hit) and np.abs(hit - 1000 * fs_out / fs_in).max() <= reach
    np.testing.assert_array_equal(np.delete(result, hit), np.delete(clean, hit))


@each_kernel
@each_dtype
def test_memory_layout_does_not_matter(rng, kernel, dtype):
    x = rng.standard_normal((4, 300)).astype(dtype)
    expected = kernel(x)
    wide = np.zeros((8, 600), dtype)
    wide[::2, ::2] = x
    read_only = x.copy()
    read_only.setflags(write=False)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), dtype, offset=1).reshape(x.shape)
    swapped = x.astype(x.dtype.newbyteorder())
    for same in (
        wide[::2, ::2],
        np.asfortranarray(x),
        read_only,
        unaligned,
        swapped,
        x[::-1][::-1],
        x[:, ::-1][:, ::-1],
    ):
        before = same.copy()
        result = kernel(same)
        assert result.dtype == dtype and result.flags.c_contiguous and result.flags.writeable
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(same, before)  # the input is never written


@each_kernel
@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_integers_are_taken_as_float64(rng, kernel, integer):
    limits = np.iinfo(np.int16 if np.dtype(integer).itemsize > 1 else integer)
    x = rng.integers(0 if np.dtype(integer).kind == "u" else limits.min, limits.max, (2, 300), endpoint=True)
    x[:, :2] = limits.max, 0 if np.dtype(integer).kind == "u" else limits.min
    result = kernel(x.astype(integer))
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, kernel(x.astype(np.float64)))


def test_int16_extremes_equal_scipy():
    x = np.tile(np.array([-32768, 32767], np.int16), 500)
    expected = scipy.signal.sosfiltfilt(butter(3, 0.5, 40, 360), x.astype(np.float64))
    np.testing.assert_allclose(pqrst.bandpass(x, 360, 0.5, 40), expected, rtol=0, atol=FILTER * 32768)
    expected = scipy.signal.resample_poly(x.astype(np.float64), 25, 18)
    np.testing.assert_allclose(pqrst.resample(x, 360, 500), expected, rtol=0, atol=1e-11 * 32768)
    np.testing.assert_array_equal(pqrst.minmax(x), (x.astype(np.float64) + 32768) / 65535)


@each_kernel
def test_lists_are_taken_as_arrays(rng, kernel):
    x = rng.standard_normal((2, 100))
    np.testing.assert_array_equal(kernel(x.tolist()), kernel(x))


@pytest.mark.parametrize("name", ["bandpass", "notch", "resample"])
def test_filters_are_linear(rng, name):
    x, y = rng.standard_normal((2, 2, 1000))
    kernel = KERNELS[name]
    np.testing.assert_allclose(kernel(2 * x - 3 * y), 2 * kernel(x) - 3 * kernel(y), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(kernel(1024 * x), 1024 * kernel(x))  # a power of two changes no bit of a mantissa


@pytest.mark.parametrize("name", ["bandpass", "notch"])
def test_filters_have_no_phase_so_time_can_run_backwards(rng, name):
    """Away from the ends: there, forwards then backwards and backwards then forwards start from different states."""
    x = np.zeros(20000)
    x[9000:11000] = rng.standard_normal(2000)
    kernel = KERNELS[name]
    np.testing.assert_allclose(kernel(x[::-1])[::-1], kernel(x), rtol=0, atol=1e-10)


def test_resample_has_no_phase_so_time_can_run_backwards(rng):
    x = rng.standard_normal(1001)  # 1001 -> 501: both ends are samples of both rates
    y = pqrst.resample(x, 500, 250)
    np.testing.assert_allclose(pqrst.resample(x[::-1], 500, 250)[::-1], y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["bandpass", "notch"])
def test_float32_filters_are_the_float64_filters_rounded_once(rng, name):
    x = rng.standard_normal((3, 2000)).astype(np.float32)
    np.testing.assert_array_equal(KERNELS[name](x), KERNELS[name](x.astype(np.float64)).astype(np.float32))


@each_kernel
def test_threads_do_not_change_a_bit(rng, kernel):
    x = rng.standard_normal((32, 5000))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(kernel, x))
    np.testing.assert_array_equal(np.stack(rows), kernel(x))


@pytest.mark.parametrize("kernel", [*KERNELS.values(), lambda x: pqrst.rpeaks(x, 360)], ids=[*KERNELS.keys(), "rpeaks"])
def test_other_threads_run_while_a_kernel_works(rng, kernel):
    x = np.tile(rng.standard_normal((2, 40_000)), 100)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(kernel, x)
        turns = 0
        while not result.done():
            turns += 1
    assert turns > 10  # a kernel that keeps the interpreter to itself lets no turn pass


def test_no_openmp_runtime_is_linked():
    libraries = Path(pqrst.__file__).read_bytes()
    assert not any(name in libraries for name in (b"libgomp", b"libomp", b"libiomp"))


@each_kernel
def test_no_leads_and_no_samples_are_refused(kernel):
    with pytest.raises(ValueError, match="x: has no leads"):
        kernel(np.ones((0, 100)))
    for shape in [(0,), (3, 0)]:
        with pytest.raises(ValueError, match="x: has no samples"):
            kernel(np.ones(shape))


@pytest.mark.parametrize("name", ["bandpass", "notch", "resample"])
def test_filters_take_one_or_two_dimensions(name):
    for x, rank in [(np.ones((1, 1, 100)), 3), (np.float64(1), 0)]:
        with pytest.raises(ValueError, match=rf"x: expected shape \(T,\) or \(L, T\), got {rank} dimensions"):
            KERNELS[name](x)


NOT_NUMERIC = {
    "None": None,
    "bool": np.ones(100, bool),
    "complex": np.ones(100, complex),
    "text": np.array(["1.0"] * 100),
    "object": np.ones(100, object),
    "float16": np.ones(100, np.float16),
    "time": np.zeros(100, "datetime64[s]"),
}


@each_kernel
@pytest.mark.parametrize("x", NOT_NUMERIC.values(), ids=NOT_NUMERIC.keys())
def test_what_is_not_numeric_is_a_type_error(kernel, x):
    with pytest.raises(TypeError, match=r"x: dtype .*, expected float32, float64 or integers"):
        kernel(x)


@pytest.mark.parametrize("x", NOT_NUMERIC.values(), ids=NOT_NUMERIC.keys())
def test_segment_of_what_is_not_numeric_is_a_type_error(x):
    with pytest.raises(TypeError, match=r"x: dtype .*, expected float32, float64 or integers"):
        pqrst.segment(x, [5], 10)


@pytest.mark.parametrize("name", ["bandpass", "notch", "resample", "segment", "zscore", "minmax"])
def test_help_states_shapes_and_errors(name):
    text = getattr(pqrst, name).__doc__
    for heading in ("Parameters\n", "Returns\n", "Raises\n", "float32"):
        assert heading in text


DAY = """
import numpy as np, pqrst, resource, sys
unit = {"linux": 2**10, "darwin": 1}[sys.platform]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
beat = np.sin(np.arange(300, dtype=np.float32) * np.float32(np.pi / 300)) ** 51
n = 30_000_000
x = np.resize(beat, n)
filtered, resampled = lambda: pqrst.bandpass(x, 350, 0.5, 40), lambda: pqrst.resample(x, 360, 500)
for kernel in (filtered, resampled, lambda: pqrst.rpeaks(x, 350)):
    before = peak()
    result = kernel()
    print(len(result), int(result[-1]) if result.dtype == np.int64 else 0, peak() - before - result.nbytes / 2**20)
"""


@pytest.mark.slow
def test_a_day_of_one_lead_takes_no_memory_beyond_its_result():
    here = Path(pqrst.__file__).parent
    run = subprocess.run([sys.executable, "-c", DAY], capture_output=True, text=True, cwd=here, timeout=500, check=True)
    filtered, resampled, beats = (line.split() for line in run.stdout.splitlines())
    assert filtered[0] == "30000000" and resampled[0] == "41666667"
    assert 99_990 <= int(beats[0]) <= 100_000  # a beat every 300 samples
    assert int(beats[1]) > 29_990_000
    for kernel in (filtered, resampled, beats):
        assert float(kernel[2]) < 8  # MiB


FORK = """
import os, sys, threading, time, numpy, pqrst
x, stop = numpy.zeros((1, 400)), threading.Event()

def resample():
    k = 0
    while not stop.is_set():
        pqrst.resample(x, 300 + k % 50, 211)
        k += 1

thread = threading.Thread(target=resample)
thread.start()
try:
    for k in range(100):
        child = os.fork()
        if not child:
            pqrst.resample(x, 300 + k % 50, 211)
            os._exit(0)
        deadline = time.time() + 10
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.time() > deadline:
                os.kill(child, 9)
                sys.exit("a child hangs")
            time.sleep(0.0005)
finally:
    stop.set()
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer itself holds locks")
def test_a_child_forked_while_a_thread_resamples_does_not_hang():
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="masked"):
        pqrst.zscore(np.ma.masked_array(np.ones(10)))

# Made by `make stubs`; do not edit.
# mypy: disable-error-code="overload-cannot-match,overload-overlap,type-arg"
"""
The signal chain of the ECG toolkit: WFDB reading, filters, resampling, R peaks, rows.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import typing

__all__: list[str] = [
    "Annotations",
    "FormatError",
    "Header",
    "Prepared",
    "RPeakDetector",
    "Record",
    "augment",
    "bandpass",
    "cluster_shapes",
    "header",
    "is_voltage",
    "lead_name",
    "match_leads",
    "minmax",
    "n_rows",
    "notch",
    "prepare",
    "read",
    "read_annotations",
    "resample",
    "row_before",
    "row_samples",
    "row_starts",
    "rpeaks",
    "segment",
    "simd",
    "zscore",
]

class FormatError(ValueError):
    pass

class Record:
    """
    One recording.

    Made by `read`, or out of an array: ``Record(signal, fs, leads)``.

    Parameters
    ----------
    signal : (L, T) float32 or float64, in `units`; copied, NaN where invalid
    fs : float, Hz
    leads : L names
    units : L units, "mV" if None; V, uV and nV are converted to mV
    name : str, for messages
    warnings : list of str, what is doubtful about the recording; a lead with finite values that float32 cannot hold adds a
        line, and these are NaN
    comments : list of str
    start_time : str

    Attributes
    ----------
    signal : (L, T) float32, mV for voltages; NaN where invalid. The array shares the record's memory.
    fs : float, Hz, samples per second and lead
    leads : tuple of L names
    units : tuple of L units: "mV" for voltages, otherwise the header's own, unconverted
    calibrated : tuple of L bool, False where the header gives no gain and 200 ADC units per unit were assumed
    n_samples : int, length of the whole record, also when a part of it was read; of a truncated one what is there
    comments : list of str, the header's comment lines without "#"
    start_time : str, time and date as the header has them, "" if absent
    warnings : list of str, one for each lead whose checksum is wrong or whose values float32 cannot hold, for each file
        that is truncated, and for leads of which only the mean of each frame was read
    name : str

    Raises
    ------
    ValueError
        A dtype other than float32 or float64, a rank other than 2, no leads, no samples, fs <= 0 or not finite, or a
        number of names or units other than L.
    """
    def __init__(
        self,
        signal: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        fs: typing.SupportsFloat | typing.SupportsIndex,
        leads: collections.abc.Sequence[str],
        units: collections.abc.Sequence[str] | None = None,
        name: str = "",
        warnings: collections.abc.Sequence[str] = [],
        comments: collections.abc.Sequence[str] = [],
        start_time: str = "",
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def calibrated(self) -> tuple[bool, ...]: ...
    @property
    def comments(self) -> list[str]: ...
    @property
    def fs(self) -> float: ...
    @property
    def leads(self) -> tuple[str, ...]: ...
    @property
    def n_samples(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def signal(self) -> numpy.typing.NDArray[numpy.float32]: ...
    @property
    def start_time(self) -> str: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def warnings(self) -> list[str]: ...

class Header:
    """
    What the header of a recording says; made by `header`.

    Attributes
    ----------
    fs : float, Hz, samples per second and lead, as `read` gives all leads by default
    n_samples : int at that rate, or None where neither the header nor a signal file tells
    samps_per_frame : list of L int
    leads : tuple of L names
    units : tuple of L units: "mV" for voltages, otherwise the header's own
    calibrated : tuple of L bool, False where the header gives no gain
    gains : list of L float, ADC units per unit, as `units` has it
    formats : list of int, the storage formats, ascending
    files : list of str, the files with the signals, relative to the header's folder
    n_bytes : int, size of the header and of these files, or None where one of them is missing
    comments : list of str, the header's comment lines without "#"
    start_time : str, time and date as the header has them, "" if absent
    name : str
    """
    def __repr__(self) -> str: ...
    @property
    def calibrated(self) -> tuple[bool, ...]: ...
    @property
    def comments(self) -> list[str]: ...
    @property
    def files(self) -> list[str]: ...
    @property
    def formats(self) -> list[int]: ...
    @property
    def fs(self) -> float: ...
    @property
    def gains(self) -> list[float]: ...
    @property
    def leads(self) -> tuple[str, ...]: ...
    @property
    def n_bytes(self) -> int | None: ...
    @property
    def n_samples(self) -> int | None: ...
    @property
    def name(self) -> str: ...
    @property
    def samps_per_frame(self) -> list[int]: ...
    @property
    def start_time(self) -> str: ...
    @property
    def units(self) -> tuple[str, ...]: ...

class Annotations:
    """
    The N annotations of one file, in its order; made by `read_annotations`.

    Attributes
    ----------
    sample : (N,) int64, position in samples of the record
    symbol : list of N str, the WFDB mnemonic ("N", "V", "+", ...); "[42]" for a code that has none
    subtype, chan, num : (N,) int32
    aux : list of N str, "" where there is none
    fs : float or None, Hz, the time resolution that the file itself notes, from which positions have been converted; None
        if it notes none: then they counted the record's frames
    """
    def __len__(self) -> int: ...
    @property
    def aux(self) -> list[str]: ...
    @property
    def chan(self) -> numpy.typing.NDArray[numpy.int32]: ...
    @property
    def fs(self) -> float | None: ...
    @property
    def num(self) -> numpy.typing.NDArray[numpy.int32]: ...
    @property
    def sample(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def subtype(self) -> numpy.typing.NDArray[numpy.int32]: ...
    @property
    def symbol(self) -> list[str]: ...

class RPeakDetector:
    """
    Find R peaks in a stream, in chunks of any length.

    The beats are the same however the signal is cut, and the same as `rpeaks` finds in the whole.

    Parameters
    ----------
    fs : float, Hz, 50 to 10000
    n_leads : int, 1 to 1024
    """
    def __init__(
        self, fs: typing.SupportsFloat | typing.SupportsIndex, n_leads: typing.SupportsInt | typing.SupportsIndex = 1
    ) -> None: ...
    def finish(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        Return the beats still open at the end, (N,) int64; nothing can be pushed afterwards.
        """
    def push(self, x: typing.Any) -> numpy.typing.NDArray[numpy.int64]:
        """
        Take the next samples and return the beats that they settle.

        Parameters
        ----------
        x : (T,) for one lead, or (n_leads, T), float32 or float64 (integers as float64), any unit; T may be 0

        Returns
        -------
        (N,) int64, sample indices counted from the first sample pushed, ascending over all calls.

        Raises
        ------
        ValueError
            Another number of leads, or a detector that is finished.
        TypeError
            x is not numeric (bool, complex, text, None, ...) or float16.
        """
    @property
    def fs(self) -> float:
        """
        Sampling rate in Hz.
        """
    @property
    def look_ahead_s(self) -> float:
        """
        Seconds of signal after a beat by which it has been returned, at the latest.
        """
    @property
    def n_leads(self) -> int:
        """
        Leads per push.
        """

class Prepared:
    """
    Rows of one or many records, as `prepare` gives them.

    Attributes
    ----------
    rows : (N, L, T) float16 or float32, in the order of the records
    record : (N,) int64, index of the row's record
    index : (N,) int64, place of the row's centre, or window, within the record
    start : (N,) int64, at the record's own rate: the row's first sample, for a beat its centre
    valid : (N, 2) int64, [first, last) sample of the row that lies inside the record; the rest is 0
    lead_mask : (N, L) uint8, 1 where a lead of the record fills the slot
    errors : list of (record, stage, reason), what is not in `rows`
    warnings : list of (record, stage, reason), what is, with something to say about it
    """
    @property
    def errors(self) -> list[tuple[int, str, str]]: ...
    @property
    def index(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def lead_mask(self) -> numpy.typing.NDArray[numpy.uint8]: ...
    @property
    def record(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def rows(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
    @property
    def start(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def valid(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def warnings(self) -> list[tuple[int, str, str]]: ...

def _bandpass_design(
    order: typing.SupportsInt | typing.SupportsIndex,
    low_hz: typing.SupportsFloat | typing.SupportsIndex,
    high_hz: typing.SupportsFloat | typing.SupportsIndex,
    fs: typing.SupportsFloat | typing.SupportsIndex,
) -> tuple[list[typing.Annotated[list[float], "FixedSize(2)"]], float, int]:
    """
    (a1, a2) of each second-order section, the gain of all, padding in samples.
    """

def _random_words(
    key: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(4)"],
    counter: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(4)"],
) -> typing.Annotated[list[int], "FixedSize(4)"]:
    """
    Threefry 4x32-20, for comparison with its published values.
    """

def _resampling_taps(
    up: typing.SupportsInt | typing.SupportsIndex, down: typing.SupportsInt | typing.SupportsIndex
) -> numpy.typing.NDArray[numpy.float64]:
    """
    The low-pass of resample, times up: (2 * 10 * max(up, down) + 1,) float64.
    """

def _rpeak_candidates(
    x: typing.Annotated[numpy.typing.ArrayLike, numpy.float64], fs: typing.SupportsFloat | typing.SupportsIndex
) -> tuple[
    numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]
]:
    """
    Every possible beat that rpeaks weighs: time (s), log height, features (N, views, F), in the sum of the leads and, of several, in each. To fit its weights.
    """

def _rpeaks_with(
    x: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    fs: typing.SupportsFloat | typing.SupportsIndex,
    hidden: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    hidden_bias: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    output: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    bias: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.int64]:
    """
    rpeaks with other weights, to cross-fit them.
    """

def augment(
    x: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    rows: typing.Any,
    valid: typing.Any,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    epoch: typing.SupportsInt | typing.SupportsIndex = 0,
    *,
    noise: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    gain: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    wander: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    shift_s: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    polarity: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    lead_dropout: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    lead_subset: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    time_mask_s: typing.SupportsFloat | typing.SupportsIndex = 0.0,
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Change rows at random: shift them in time, scale or turn them, add a slow wave, add noise, hide leads and a stretch.

    Each row's numbers depend on seed, epoch and its own number alone, not on what else is in the batch, the process or the
    SIMD level: Threefry 4x32-20 (Salmon et al. 2011) with these as its key, normal numbers after Box and Muller (1958).
    A lead that is zeros throughout is missing or flat, and stays zeros.

    Parameters
    ----------
    x : (B, L, T) float16 or float32, rows in any unit
    rows : (B,) int64, number of each row in its dataset, 0 or more
    valid : (B, 2) int64, [first, last) sample of each row that is changed; the rest is padding
    fs : float, rate of the rows, Hz
    seed, epoch : int, 0 or more
    noise : float, standard deviation of white noise, in units of the row
    gain : float, below 1; a row is multiplied by a factor between 1 - gain and 1 + gain
    wander : float, largest amplitude of a sine between 0.05 and 0.5 Hz, one for each lead, in units of the row
    shift_s : float, largest shift in time either way, s, in whole samples; the ends repeat
    polarity : float, 0 to 1, chance that a row is turned upside down
    lead_dropout : float, below 1, chance of each lead to become zero; where it hits all that have a signal, all stay
    lead_subset : float, 0 to 1, chance that a row keeps a random number of its leads with a signal, 1 to all, and which ones
        at random; the others become zero, and lead_dropout leaves the row alone
    time_mask_s : float, longest stretch that becomes zero in all leads of a row, s

    Returns
    -------
    (B, L, T) float32, a new array

    Raises
    ------
    ValueError
        Shapes that do not fit, a valid range outside the row, a negative row, or an amount that is out of range.
    TypeError
        x is neither float16 nor float32; rows or valid are no integers; seed or epoch is negative.
    """

def bandpass(
    x: typing.Any,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    low_hz: typing.SupportsFloat | typing.SupportsIndex,
    high_hz: typing.SupportsFloat | typing.SupportsIndex,
    order: typing.SupportsInt | typing.SupportsIndex = 3,
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Zero-phase Butterworth band-pass, equal to scipy.signal.sosfiltfilt with its defaults.

    Parameters
    ----------
    x : (T,) or (L, T) float32 or float64 (integers as float64), any unit; T above 3 * (2 * order + 1)
    fs : float, sampling rate in Hz
    low_hz, high_hz : float, band edges (-6 dB after both passes), 0 < low_hz < high_hz < fs / 2
    order : int, 1 to 8

    Returns
    -------
    Shape, dtype and unit of x. Computed in float64, rounded once; NaN or infinity stays in its lead.
    float64 lies within 1e-11 x max|x| of SciPy where low_hz >= fs / 2000. Below, coefficients rounded to float64 are another
    filter, and SciPy's start is off: measured at 0.05 Hz and 1000 Hz, this is 1e-10 and SciPy 1e-9 from the exact filter.

    Raises
    ------
    ValueError
        A setting outside its range, a signal that is not longer than the padding, another rank, no leads, no samples.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.
    """

def cluster_shapes(
    x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    joins: typing.SupportsFloat | typing.SupportsIndex,
    merges: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.int32]:
    """
    Group shapes that are alike, in one pass (leader clustering, Hartigan 1975), then merge groups that are.

    Parameters
    ----------
    x : (N, D) float32, one shape per row, any unit
    joins : float, the least correlation (cosine of the angle) with the mean of a group at which a shape joins it
    merges : float, the correlation of means from which two groups become one

    Returns
    -------
    (N,) int32, 0 for the largest group; -1 for a row that is all zeros or has values that are not finite. At most 64 groups.

    Raises
    ------
    ValueError
        x is not of two dimensions.
    TypeError
        x is not float32.
    """

def header(path: os.PathLike | str | bytes) -> Header:
    """
    Read the header of a WFDB record, and no signal.

    Parameters
    ----------
    path : str or os.PathLike, of the header, with or without ".hea"

    Returns
    -------
    Header

    Raises
    ------
    FileNotFoundError
        The header, or the one that describes the segments, is not there.
    FormatError
        A damaged header. Formats that `read` refuses are listed in `formats`, not refused.
    """

def is_voltage(unit: str) -> bool:
    """
    Tell whether a unit is one that `Record` converts to mV: V, mV, uV or nV, in any case.
    """

def lead_name(name: str) -> str:
    """
    Return a lead's name as all spellings of it compare.

    Without regard to case, to what only says that it is a lead, or to a unit or remark in brackets: `ECG I`, `ecg_i`,
    `Lead I (Einthoven)`, `MDC_ECG_LEAD_I`, `I (mV)` and `DI` are `i`; `-aVR` is `-avr`.
    """

def match_leads(
    slots: collections.abc.Sequence[collections.abc.Sequence[str]], leads: collections.abc.Sequence[str]
) -> list[int]:
    """
    For each slot the index of the lead that fills it, or -1.

    Slots choose in order, each the first of its accepted names that is left; a lead fills one slot only. Names compare as
    `lead_name` gives them. A lead with its sign turned, as `-aVR`, fills a slot that no other fills; `prepare` turns it
    back and says so.
    """

def minmax(x: typing.Any) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Scale each row (last axis) from its smallest and largest sample to 0 and 1.

    Parameters
    ----------
    x : (..., T) float32 or float64 (integers as float64), any unit, rank at least 1

    Returns
    -------
    Shape and dtype of x, no unit, 0..1. Computed in float64, rounded once. A constant row gives zeros; a row with a NaN or
    an infinity becomes NaN, others are untouched.

    Raises
    ------
    ValueError
        A single number, no samples, no leads.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.
    """

def n_rows(
    recipe: dict[str, typing.Any],
    n_samples: typing.SupportsInt | typing.SupportsIndex,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    n_centers: typing.SupportsInt | typing.SupportsIndex = 0,
) -> int:
    """
    Number of rows that a record of n_samples at fs Hz with n_centers beats gives, before any is dropped.
    """

def notch(
    x: typing.Any,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    notch_hz: typing.SupportsFloat | typing.SupportsIndex,
    quality: typing.SupportsFloat | typing.SupportsIndex = 30.0,
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Zero-phase notch against mains hum, equal to scipy.signal.iirnotch and filtfilt.

    Parameters
    ----------
    x : (T,) or (L, T) float32 or float64 (integers as float64), any unit; T at least 10
    fs : float, sampling rate in Hz
    notch_hz : float, the frequency removed, 0 < notch_hz < fs / 2
    quality : float, notch_hz over the width of the notch (-3 dB, one pass), above notch_hz / (fs / 2)

    Returns
    -------
    Shape, dtype and unit of x. Computed in float64, rounded once; NaN or infinity stays in its lead.

    Raises
    ------
    ValueError
        A setting outside its range, fewer than 10 samples, another rank, no leads, no samples.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.
    """

def prepare(
    records: typing.Any,
    recipe: dict[str, typing.Any],
    centers: typing.Any = None,
    out: typing.Any = None,
    n_threads: typing.SupportsInt | typing.SupportsIndex = 1,
    skip_errors: bool = False,
) -> Prepared:
    """
    The whole chain: records to rows.

    Read (mV) -> slots by name -> bridge gaps -> band-pass, notch at the record's own rate -> resample -> cut -> scale over
    the row's valid samples -> padding to 0 -> cast. In float64, rounded once to float32 and from there to float16. Equals
    the public kernels composed on float64 arrays. Never gives NaN. A lead that does not change within a row is zeros there.
    Limb leads that contradict each other (swapped, inverted, of another gain) and amplitudes that no ECG has are warnings.

    Parameters
    ----------
    records : a path or Record, or a list of them; symbolic links are followed, as `read` does without strict
    recipe : dict, the tree of recipe.Recipe
    centers : for beat rows, one (N,) int64 array of sample indices per record, at its own rate
    out : (>= N, L, T) array of the recipe's dtype to write to, N the sum of `n_rows`; `rows` is then a view of its beginning
    n_threads : int, records at work at a time; the result does not depend on it
    skip_errors : bool, list a record that fails in `errors` instead of raising

    Returns
    -------
    Prepared

    Raises
    ------
    TypeError
        records that are no path, Record or list of them; centers that are no list of integer arrays.
    ValueError
        A recipe with a missing or wrong key; a record without the leads that the slots accept, in units other than
        voltage, too short for the filter, or with centres more than a window outside.
    FormatError, FileNotFoundError
        A record that cannot be read.
    """

def read(
    path: os.PathLike | str | bytes,
    leads: collections.abc.Sequence[str] | None = None,
    start: typing.SupportsInt | typing.SupportsIndex = 0,
    stop: typing.SupportsInt | typing.SupportsIndex | None = None,
    strict: bool = False,
    max_samples: typing.SupportsInt | typing.SupportsIndex = 268435456,
    truncated: bool = False,
    frames: str | None = None,
) -> Record:
    """
    Read a WFDB record.

    Formats 8, 16, 24, 32, 61, 80, 160, 212, 310 and 311, and MATLAB v4 files as WFDB publishes them; several files, several
    samples per frame, skew, byte offset, and segments. Signals of format
    0 are null signals: nothing is stored, all their samples are NaN, as are gaps between segments. A missing fs is 250 Hz,
    a missing gain 200 ADC units per unit, a missing unit mV, a missing length that of the shortest signal file.

    Parameters
    ----------
    path : str or os.PathLike, of the header, with or without ".hea"
    leads : names in the order wanted, all if None
    start, stop : int, samples [start, stop) of the record; to the end if stop is None
    strict : bool, what would be a line in `Record.warnings` is an error: a wrong checksum, values that float32 cannot hold.
        So is a symbolic link from a file of the record out of the folder of its header. Otherwise links are followed:
        datalad and git-annex keep the content of files elsewhere. Checksums cover all that is stored and are compared when
        the whole record is read; where all of them are 0 they are absent.
    max_samples : int, the most values (leads x samples) that may come from no file: null signals, gaps, repeated segments
    truncated : bool, a signal file shorter than its header says is no error but a line in `Record.warnings`, and the record
        as long as the samples that are there; its checksums are not compared. Not with strict, and not within segments.
    frames : of leads with several samples per frame "full" gives all samples, fs being that many times the frame rate;
        "mean" one per frame, in whole ADC units cut towards zero, as the WFDB library does. None is "full" where all leads
        to be read share one rate, else "mean" with a line in `Record.warnings`.

    Returns
    -------
    Record

    Raises
    ------
    FileNotFoundError
        The header, a signal file or a segment that is needed is not there.
    FormatError
        A damaged or truncated file, a format that is not read (FLAC among them), no leads, no samples, a file name that
        leaves the record's folder, a header of more than 16 MiB. It is a ValueError, and names file and line or byte.
    ValueError
        A lead that the record does not have, start and stop that are no range within it, or frames="full" for leads of
        several rates.
    """

def read_annotations(
    path: os.PathLike | str | bytes, extension: str, fs: typing.SupportsFloat | typing.SupportsIndex | None = None
) -> Annotations:
    """
    Read a WFDB annotation file in MIT format.

    Positions become samples of the record: they are converted from the time resolution that the file notes, or from frames
    where it notes none, half a sample rounded up. Without a header beside the file they stay as they are, unless fs is
    given and the file notes its resolution. Notes at the beginning that define the time resolution or symbols are applied
    and left out, place holders (code 0) left out. A file that is a symbolic link is followed wherever it leads.

    Parameters
    ----------
    path : str or os.PathLike, of the record, with or without ".hea"
    extension : str, the annotator, such as "atr"
    fs : float, Hz, the rate of the samples; of those that `read` gives of all leads if None

    Returns
    -------
    Annotations

    Raises
    ------
    FileNotFoundError
        There is no such file.
    FormatError
        A word or text that is cut off, a field before the first annotation (names file and byte), or a damaged header.
    """

def resample(
    x: typing.Any, fs_in: typing.Any, fs_out: typing.Any
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Resample, equal to scipy.signal.resample_poly with its defaults (Kaiser-windowed sinc, no delay, zeros outside).

    Parameters
    ----------
    x : (T,) or (L, T) float32 or float64 (integers as float64), any unit
    fs_in, fs_out : int, float or fractions.Fraction, rates of x and of the result in Hz; a float must be a fraction with a
        denominator up to 10000 (15.5, 499.348), fs_in else so near to one up to 1000 that the drift over x is below half a
        sample (249.99999999999997); the reduced ratio must not need numbers above 2^20

    Returns
    -------
    (..., ceil(T * fs_out / fs_in)), dtype and unit of x, computed in this dtype; equal rates give a copy. NaN or infinity
    stays in its lead, and reaches 10 samples of the lower rate and up to 5 outputs beside them.

    Raises
    ------
    ValueError
        A rate that is not finite, not above 0 or no small fraction; a result too large; another rank, no leads, no samples.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.
    """

def row_before(recipe: dict[str, typing.Any]) -> int:
    """
    Samples of a beat's row ahead of its centre, at the recipe's rate.
    """

def row_samples(recipe: dict[str, typing.Any]) -> int:
    """
    Length of a row in samples at the recipe's rate.
    """

def row_starts(
    recipe: dict[str, typing.Any],
    n_samples: typing.SupportsInt | typing.SupportsIndex,
    fs: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.int64]:
    """
    Where the rows of a record begin: the only rule by which windows are cut, for signals and labels alike.

    Parameters
    ----------
    recipe : dict, the tree of recipe.Recipe, with rows that are records or windows
    n_samples : int, of the record
    fs : float, rate of the record, Hz

    Returns
    -------
    (N,) int64, the first sample of each row at the record's own rate, before any row is dropped; N is `n_rows`. A row has
    `row_samples` at the recipe's rate, that is row_samples * fs / recipe.fs at the record's.

    Raises
    ------
    ValueError
        Rows that are beats: their centres say where they lie.
    """

def rpeaks(x: typing.Any, fs: typing.SupportsFloat | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int64]:
    """
    Find the R peak of every beat.

    The beats are the best sequence of peaks of the 7-25 Hz envelope, by dynamic programming over the log-odds of each peak
    and costs for early beats and gaps. The log-odds come from 25 ratios of what is around a peak to its height, in four
    frequency bands, by a small fitted network (benchmarks/fit_rpeaks.py). Of several leads, the peaks are those of the sum,
    each lead normalised by its own level and weighted by how clearly it shows beats; the log-odds are the mean of what the
    network says of each lead, weighted by how well that told beats from other waves from 8 s before to 2 s after. Exactly
    `RPeakDetector(fs, n_leads)` fed in one push and finished.

    A lead far above what its ECG can be is left out while the other leads show one; alone, it may show false beats, but hides
    none before or after it. Tall P waves that no beat follows (AV block) are rejected if another lead hardly shows them.
    Beats are at least 200 ms apart. Only eight or more in a row that look alike, at a steady rate, may come faster, up to
    310 bpm; a fast rhythm whose intervals vary by more than 3 % loses beats above 260 bpm.

    Parameters
    ----------
    x : (T,) or (L, T) float32 or float64 (integers as float64), any unit
        Values that are not finite, and one value for 200 ms or longer, are a gap in their lead: they do not hurt the other
        leads, nor what follows.
    fs : float, Hz, 50 to 10000

    Returns
    -------
    (N,) int64, ascending sample indices; empty if no lead shows a beat.

    Raises
    ------
    ValueError
        fs outside its range, a rank other than 1 or 2, no leads or no samples.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.

    Notes
    -----
    Ideas: the QRS band and the flatter T wave, Pan & Tompkins (1985); the envelope of a quadrature pair, Benitez et al.
    (2001); beats as the best path, Ellis (2007).
    """

def segment(
    x: typing.Any,
    centers: typing.Any,
    length: typing.SupportsInt | typing.SupportsIndex,
    before: typing.SupportsInt | typing.SupportsIndex | None = None,
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Cut a window around each centre.

    Parameters
    ----------
    x : (L, T) float32 or float64 (integers as float64), any unit
    centers : (N,) int64, sample indices
    length : int, samples per window, at least 1
    before : int, samples ahead of the centre, 0 to length; length // 2 if None

    Returns
    -------
    (N, L, length), dtype and unit of x; a window that leaves the signal repeats the edge sample.

    Raises
    ------
    ValueError
        length < 1, a rank other than 2, no leads, no samples, or a centre more than one window outside the signal.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16; centers are not integers.
    """

def simd() -> str:
    """
    The instructions that the kernels use: "avx512", "avx2", "neon" or "baseline".

    The best that the machine has, or the one that the environment variable PQRST_SIMD names when the extension is loaded
    (an ImportError where machine or build have no such level). All give the same bits. "baseline" computes its fused
    multiply-adds in the C library: exact, and slow where the processor has none, as before 2013.
    """

def zscore(x: typing.Any) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Scale each row (last axis) to mean 0 and standard deviation 1 over its samples (ddof 0).

    Parameters
    ----------
    x : (..., T) float32 or float64 (integers as float64), any unit, rank at least 1

    Returns
    -------
    Shape and dtype of x, no unit. Computed in float64, rounded once. A constant row gives zeros; a row with a NaN or an
    infinity becomes NaN, others are untouched.

    Raises
    ------
    ValueError
        A single number, no samples, no leads.
    TypeError
        x is not numeric (bool, complex, text, None, ...) or float16.
    """

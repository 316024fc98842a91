"""Find copies of one recording under two names in a prepared dataset; across folds they falsify every score.

    found = duplicates.find(data.Dataset(Path("prepared/ptbxl")))
    print(duplicates.report(found))

A copy is the same signal up to one gain, offsets, polarity, rounding, noise 20 dB below it, and a start up to a second
earlier or later. Rows of one record, or of one patient in one fold, do no harm and are not compared.

Rows that are records or windows are compared with each other, each with every other:

1. A fingerprint: the first 12 s of a row, 1 to 6 Hz, through a fixed random projection to 64 numbers. The cosine of two
   fingerprints estimates the correlation of the two signals. The earlier row of a pair gives one, of its middle part;
   the later one gives one for every start that is up to a second away.
2. Pairs with a cosine above CANDIDATE are compared in full: all valid samples at the stored rate.

20,000 rows of 12 leads and 1,000 samples take about two minutes on two cores; four times as many take 16 times as long.

Rows that are beats resemble each other within a record, and often between two people. No two people share a rhythm, so
records of beats are compared by RR intervals: the same RUN of them, to the sample, anywhere in both. This finds a copy
shifted by any time or with other leads, but none that was resampled or whose beats were detected again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data import Dataset

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HEAD_S = 12.0  # the beginning of a row, from which its fingerprint is computed
BAND_HZ = (1.0, 6.0)  # above baseline wander
STEP_S = 1 / 32  # between the starts tried: a copy is at most half a step from one of them, 34 degrees at 6 Hz
N_NUMBERS = 64  # in a fingerprint

# Measured on 1,732 records of PTB-XL (100 Hz, 10 s, 0.5 to 40 Hz), and on copies of 400 of them that were cut up to a
# second later under noise of 20 dB before they were filtered. The cosine of a copy is at least 0.857. Among 100,000
# pairs of different records, 0.85 is exceeded by 5 (12 leads, 10 s), 90 (one lead, 10 s) or 1,000 (one lead, 2.5 s).
CANDIDATE = 0.85
# The correlation of a copy is above 0.979. If resampling moves the copy by a part of a sample, it is above 0.947, and
# above 0.964 for 99 of 100 copies. Different records reach at most 0.80 with 12 leads. With one lead, regular rhythms
# of the same rate reach 0.955.
ALIKE = 0.96
ALIKE_HALF = 0.9  # least correlation of either half: rows that share only a spike or a step are no copies
EDGE_S = 1.0  # left out at both ends, where a zero-phase filter rings differently in a shifted copy (0.98 -> 0.78)

MAX_CANDIDATES = 100_000  # pairs compared in full, those with the highest cosine first: 0.5 ms each
BLOCK_BYTES = 16 * 2**20  # size of the rows that are fingerprinted at a time, as float32
TILE = 4096  # fingerprints that a block is compared with at a time: some MB of cosines, which stay in the cache

RUN = 16  # RR intervals in a row that have to be equal
LIVELY = 8  # samples between the shortest and the longest of them, at least: all paced rhythms are alike

TINY = np.float32(1e-30)
KINDS = ("across folds", "within a fold")


class Pair(NamedTuple):
    """Two records that hold the same signal."""

    kind: str  # "across folds", or "within a fold" if two patients of one fold share the signal
    records: tuple[str, str]
    patients: tuple[str, str]
    folds: tuple[str, str]
    correlation: float  # of the two most similar rows; for beats, of all that match; negative if one is upside down
    shift_s: float  # how much later the second begins; NaN for beats, whose samples are at the record's own rate
    rows: tuple[int, int]  # numbers in the dataset: the two most similar rows; for beats, the first that match
    n_rows: int  # rows of the first record that have a copy in the second


class Found(NamedTuple):
    """The copies, and what was compared to find them."""

    pairs: list[Pair]  # across folds first, then by likeness
    what: str  # what was compared: "rows" or "records"
    compared: int
    left_out: int  # rows without any deflection, or records without RUN intervals in a row that vary
    unverified: int  # pairs of rows beyond MAX_CANDIDATES


class Match(NamedTuple):
    """Two rows that are alike; `other` comes later in the dataset."""

    row: int
    other: int
    correlation: float
    shift_s: float


def find(dataset: Dataset, max_shift_s: float = 1.0) -> Found:
    """Find the records of a prepared dataset that are copies of each other.

    Parameters
    ----------
    dataset : rows of any kind
    max_shift_s : longest shift of a copy, s; never more than an eighth of the row, or of HEAD_S if the row is longer.
        The time that the search takes grows with it. Records of beats are found at any shift.

    Returns
    -------
    Found; each pair of records is named once, however many rows the two share.

    Raises
    ------
    ValueError
        max_shift_s below 0.
    """
    if max_shift_s < 0:
        raise ValueError(f"max_shift_s {max_shift_s}: must be at least 0")
    if dataset.recipe.of_beats:
        return _of_beats(dataset)
    candidates, still, unverified = _candidates(dataset, max_shift_s)
    bar = tqdm(candidates, "candidates", unit=" pairs", disable=None, leave=False)
    verified = [_verify(dataset, candidate) for candidate in bar]
    pairs = _by_record(dataset, [match for match in verified if match])
    return Found(pairs, "rows", len(dataset) - still, still, unverified)


def report(found: Found, limit: int = 50) -> str:
    """Return the copies as lines for people, at most `limit` of each kind."""
    by_kind = {kind: [pair for pair in found.pairs if pair.kind == kind] for kind in KINDS}
    across, within = (len(pairs) for pairs in by_kind.values())
    counts = f"{across:,} pairs of records across folds, {within:,} within a fold"
    lines = [f"copies: {counts}; {found.compared:,} {found.what} compared"]
    if found.left_out:
        why = "without any deflection" if found.what == "rows" else f"without {RUN} RR intervals in a row that vary"
        lines.append(f"not compared: {found.left_out:,} {found.what} {why}")
    if found.unverified:
        lines.append(
            f"not compared in full: {found.unverified:,} pairs of rows beyond the {MAX_CANDIDATES:,} most alike"
        )
    for kind, pairs in by_kind.items():
        lines += [_line(pair) for pair in pairs[:limit]]
        if len(pairs) > limit:
            lines.append(f"{kind}: {len(pairs) - limit:,} more")
    return "\n".join(lines)


def _line(pair: Pair) -> str:
    sides = zip(pair.records, pair.patients, pair.folds, strict=True)
    names = " and ".join(f"{record} (patient {patient}, fold {fold})" for record, patient, fold in sides)
    direction = "later" if pair.shift_s > 0 else "earlier"
    shift = f", the second begins {abs(pair.shift_s):.2f} s {direction}" if abs(pair.shift_s) > 0 else ""  # not for NaN
    return f"{pair.kind}: {names}: correlation {pair.correlation:.3f} over {pair.n_rows:,} rows{shift}"


# ------------------------------------------------------------------------------------------------ records and windows


CANDIDATES = np.dtype([("row", np.int64), ("other", np.int64), ("cosine", np.float32), ("shift_s", np.float32)])


def _candidates(dataset: Dataset, max_shift_s: float) -> tuple[list[Match], int, int]:
    """Return pairs of rows whose fingerprints agree, best first; also the numbers of still rows and of pairs left out.

    One pass: a block of rows is read, fingerprinted at every shift, and compared with all earlier rows, of which one
    fingerprint each is kept. So memory grows by 256 bytes a row, and not with the square of the number of rows.
    """
    n_leads, n_samples = len(dataset.recipe.leads), dataset.summary.row_samples
    fingerprints = _Fingerprints(n_leads, n_samples, dataset.recipe.fs, max_shift_s)
    n_block = int(np.clip(BLOCK_BYTES // (4 * n_leads * n_samples), 1, 256))  # 256 x TILE cosines: 4 MB
    kept = np.zeros((len(dataset), N_NUMBERS), np.float32)
    record, group = _numbers(dataset)
    best = np.zeros(0, CANDIDATES)
    still = unverified = 0
    with tqdm(total=len(dataset) ** 2 // 2, desc="compare", unit=" pairs", disable=None, leave=False) as bar:
        for start in range(0, len(dataset), n_block):
            rows = np.arange(start, min(start + n_block, len(dataset)))
            shifted, moves = fingerprints(dataset.signals(rows).astype(np.float32))
            kept[rows] = shifted[fingerprints.reach]
            still += int((~moves).sum())
            for first in range(0, rows[-1] + 1, TILE):
                new = _agreeing(kept[first : min(first + TILE, rows[-1] + 1)], shifted)
                new["row"] += first
                new["other"] += start
                new["shift_s"] = (fingerprints.reach - new["shift_s"]) * STEP_S
                a, b = new["row"], new["other"]
                new = new[(a < b) & (record[a] != record[b]) & (group[a] != group[b])]
                best = np.concatenate([best, new])
                if len(best) > 2 * MAX_CANDIDATES:
                    unverified += len(best) - MAX_CANDIDATES
                    best = _most_alike(best)
            bar.update((rows[-1] + 1) ** 2 // 2 - start**2 // 2)
    unverified += max(len(best) - MAX_CANDIDATES, 0)
    return [Match(*candidate) for candidate in _most_alike(best).tolist()], still, unverified


def _numbers(dataset: Dataset) -> tuple[Ints, Ints]:
    """Number the record of every row, (N,), and its patient within its fold, (N,)."""
    record = np.unique(dataset.record, return_inverse=True)[1]
    patient = np.unique(dataset.patient, return_inverse=True)[1]
    folds, fold = np.unique(dataset.fold, return_inverse=True)
    return record, patient * len(folds) + fold


class _Fingerprints:
    """Compute the fingerprints of rows of one length from `2 * reach + 1` starts, STEP_S apart.

    A fingerprint uses few frequencies, and a shift turns the phase of each. So a row's spectrum is projected once, and
    its fingerprint from any start is a short sum over frequencies (a block of 256 rows: 1.0 -> 0.1 s).
    """

    def __init__(self, n_leads: int, n_samples: int, fs: float, max_shift_s: float) -> None:
        self.n_head = min(n_samples, round(HEAD_S * fs))
        length_s = self.n_head / fs
        self.reach = int(min(max_shift_s, length_s / 8) / STEP_S)
        hz = np.fft.rfftfreq(self.n_head, 1 / fs)
        self.bins = np.flatnonzero((hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1]))
        turn = 2j * np.pi * hz[self.bins, None]  # (F, 1) per second
        time_s = np.arange(0, length_s - 2 * self.reach * STEP_S, STEP_S)  # of the stretch behind one fingerprint
        random = np.random.default_rng(0).standard_normal((len(time_s), n_leads * N_NUMBERS))
        random -= random.mean(axis=0)  # a constant offset does not change a fingerprint
        seen = (np.exp(turn * time_s) @ random).reshape(len(turn), n_leads, N_NUMBERS)
        self.projection = seen.astype(np.complex64)  # (F, L, N_NUMBERS)
        places_s = STEP_S * np.arange(2 * self.reach + 1)[:, None]
        turned = np.exp(turn.T * places_s)
        self.turns = np.concatenate([turned.real, -turned.imag], axis=1).astype(np.float32)  # (places, 2F)

    def __call__(self, x: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return fingerprints of rows (B, L, T): (starts, B, N_NUMBERS), norm 1 or 0; and which rows move (B,)."""
        head = x[:, :, : self.n_head]
        spectrum = np.fft.rfft(head)[:, :, self.bins].astype(np.complex64)  # (B, L, F)
        weight = np.abs(spectrum).max(axis=(1, 2), initial=0)
        moves = weight > 1e-5 * self.n_head * np.abs(head).max(axis=(1, 2))  # less is rounding error
        numbers = (np.ascontiguousarray(spectrum.transpose(2, 0, 1)) @ self.projection).reshape(
            len(self.bins), -1
        )  # (F, B * N_NUMBERS)
        prints = (self.turns @ np.concatenate([numbers.real, numbers.imag])).reshape(-1, len(x), N_NUMBERS)
        norm = np.linalg.norm(prints, axis=2, keepdims=True)
        return prints * np.where((norm > 0) & moves[:, None], 1 / np.maximum(norm, TINY), 0), moves


def _agreeing(tile: Floats, shifted: Floats) -> NDArray[np.void]:
    """Return the pairs of a tile (M, N_NUMBERS) and a block (starts, B, N_NUMBERS) whose cosine exceeds CANDIDATE.

    Each pair holds row, other, the best cosine over all starts and, as `shift_s`, the number of that start.
    """
    cosine = np.empty((len(tile), shifted.shape[1]), np.float32)
    flat, best = cosine.reshape(-1), np.full(cosine.size, CANDIDATE, np.float32)
    step_of = np.full(cosine.size, -1, np.int16)
    for step, block in enumerate(shifted):
        np.matmul(tile, block.T, out=cosine)
        # a tile holds few such pairs or none: only these are looked at again
        for beyond in (flat.max() > CANDIDATE and flat > CANDIDATE, flat.min() < -CANDIDATE and flat < -CANDIDATE):
            places = np.flatnonzero(beyond)
            places = places[np.abs(flat[places]) > np.abs(best[places])]
            best[places], step_of[places] = flat[places], step
    places = np.flatnonzero(step_of >= 0)
    out = np.empty(len(places), CANDIDATES)
    out["row"], out["other"] = np.divmod(places, cosine.shape[1])
    out["cosine"], out["shift_s"] = best[places], step_of[places]
    return out


def _most_alike(candidates: NDArray[np.void]) -> NDArray[np.void]:
    """Return at most MAX_CANDIDATES candidates, best first."""
    return candidates[np.argsort(-np.abs(candidates["cosine"]), kind="stable")[:MAX_CANDIDATES]]


def _verify(dataset: Dataset, candidate: Match) -> Match | None:
    """Return a candidate with its exact correlation and shift; None if its rows are no copies of each other."""
    fs = dataset.recipe.fs
    pair = np.array([candidate.row, candidate.other])
    a, b = (
        x[:, :end].astype(np.float32) for x, (_, end) in zip(dataset.signals(pair), dataset.valid[pair], strict=True)
    )
    near, reach = round(candidate.shift_s * fs), int(np.ceil(fs * STEP_S))
    edge = min(round(EDGE_S * fs), min(a.shape[1], b.shape[1]) // 8)
    found = [(_correlation(a, b, lag, edge), float(lag)) for lag in range(near - reach, near + reach + 1)]
    lag = int(max(found)[1])
    between = (b[:, :-1] + b[:, 1:]) / 2  # half a sample later: a resampled copy may lie there (0.90 -> 0.95)
    found += [(_correlation(a, between, lag + more, edge), lag + more - 0.5) for more in (0, 1)]
    (likeness, half, correlation), shift = max(found)
    if likeness < ALIKE or half < ALIKE_HALF:
        return None
    return candidate._replace(correlation=correlation, shift_s=shift / fs)


def _correlation(a: Floats, b: Floats, lag: int, edge: int) -> tuple[float, float, float]:
    """Correlate a (L, T) with b (L, T'), which begins `lag` samples later; `edge` samples at both ends do not count.

    Return the absolute correlation, the correlation of the half that agrees less, and the signed correlation. All leads
    count together, so that leads without signal weigh little. The mean of each half and lead is subtracted.
    """
    a, b = a[:, max(lag, 0) :], b[:, max(-lag, 0) :]
    half = (min(a.shape[1], b.shape[1]) - 2 * edge) // 2
    if half < 2:
        return 0.0, 0.0, 0.0
    x, y = (z[:, edge : edge + 2 * half].reshape(len(z), 2, half) for z in (a, b))
    x, y = x - x.mean(axis=2, keepdims=True), y - y.mean(axis=2, keepdims=True)
    xy, xx, yy = (np.einsum("lht,lht->h", *two) for two in ((x, y), (x, x), (y, y)))
    whole = float(xy.sum() / np.sqrt(max(xx.sum() * yy.sum(), TINY)))
    halves = np.where(xx + yy > 0, xy / np.sqrt(np.maximum(xx * yy, TINY)), np.sign(whole))  # both still: they agree
    return abs(whole), float((halves * np.sign(whole)).min()), whole


def _by_record(dataset: Dataset, matches: list[Match]) -> list[Pair]:
    """Return a pair for any two records with copied rows: their most similar rows, if possible across folds."""
    together: dict[tuple[bytes, bytes], list[Match]] = {}
    for match in matches:
        together.setdefault((dataset.record[match.row], dataset.record[match.other]), []).append(match)
    pairs = []
    for both in together.values():
        best = max(both, key=lambda m: (dataset.fold[m.row] != dataset.fold[m.other], abs(m.correlation)))
        pairs.append(_pair(dataset, best, len({match.row for match in both})))
    return sorted(pairs, key=_order)


def _pair(dataset: Dataset, match: Match, n_rows: int) -> Pair:
    rows = match.row, match.other
    records, patients, folds = (
        (column[match.row].decode(), column[match.other].decode())
        for column in (dataset.record, dataset.patient, dataset.fold)
    )
    kind = KINDS[int(folds[0] == folds[1])]
    return Pair(kind, records, patients, folds, match.correlation, match.shift_s, rows, n_rows)


def _order(pair: Pair) -> tuple[str, float, tuple[int, int]]:
    return pair.kind, -abs(pair.correlation), pair.rows


# ------------------------------------------------------------------------------------------------ beats


def _of_beats(dataset: Dataset) -> Found:
    """Find records with RUN equal RR intervals in a row, and the correlation of the rows of those beats."""
    record, group = _numbers(dataset)
    row, other, told_apart = _same_rhythm(dataset, record)
    harm = (record[row] != record[other]) & (group[row] != group[other])
    runs = np.stack([row[harm], other[harm]])  # (2, M): the first beats of both
    beats = np.unique((runs[:, :, None] + np.arange(RUN + 1)).reshape(2, -1), axis=1)  # (2, M'): each beat and its copy
    of_pair = np.unique(record[beats], axis=1, return_inverse=True)[1].reshape(-1)
    pairs = []
    for number in range(of_pair.max(initial=-1) + 1):
        a, b = beats[:, of_pair == number]
        x, y = (dataset.signals(rows[:1000]).astype(np.float32) for rows in (a, b))  # 1,000 beats are enough
        likeness = _correlation(np.concatenate([*x], axis=1), np.concatenate([*y], axis=1), 0, 0)[2]
        pairs.append(_pair(dataset, Match(int(a[0]), int(b[0]), likeness, float("nan")), len(a)))
    n_records = int(record.max(initial=-1)) + 1
    return Found(sorted(pairs, key=_order), "records", told_apart, n_records - told_apart, 0)


def _same_rhythm(dataset: Dataset, record: Ints) -> tuple[Ints, Ints, int]:
    """Return the rows where equal runs begin, (P,) earlier and (P,) later, and the number of records with a run."""
    n_runs = max(len(dataset) - RUN, 0)
    rr = np.diff(dataset.sample)
    gap = (np.diff(record) != 0) | (np.diff(dataset.beat_index) != 1)
    each = [slice(k, k + n_runs) for k in range(RUN)]
    # a hash: 64-bit sums that overflow, with random odd factors. The intervals behind equal keys are compared below.
    factors = np.random.default_rng(0).integers(0, 2**63, RUN, dtype=np.uint64) * 2 + 1
    key, whole = np.zeros(n_runs, np.uint64), np.ones(n_runs, bool)
    low, high = np.full(n_runs, np.iinfo(np.int64).max), np.zeros(n_runs, np.int64)
    for k, factor in zip(each, factors, strict=True):
        key += rr[k].astype(np.uint64) * factor
        whole &= ~gap[k]
        low, high = np.minimum(low, rr[k]), np.maximum(high, rr[k])
    usable = np.flatnonzero(whole & (high - low >= LIVELY))
    order = usable[np.argsort(key[usable], kind="stable")]  # equal keys side by side, in the order of the rows
    rows, others = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, len(order)):
        same = np.flatnonzero(key[order[step:]] == key[order[:-step]])
        if not len(same):
            break
        a, b = order[same], order[same + step]
        equal = np.all([rr[a + k] == rr[b + k] for k in range(RUN)], axis=0)
        rows.append(a[equal])
        others.append(b[equal])
    return np.concatenate(rows), np.concatenate(others), len(np.unique(record[usable]))

"""Write the demo dataset: simulated 12-lead ECGs as WFDB records, with the true places of their R peaks.

    python simulate.py                                      # demo/: 600 patients, about 1,200 records of 10 s
    python simulate.py --out demo20 --patients 20 --seed 7 --workers 2
    python simulate.py --holter examples/holter.hea --seed 5    # two leads for two minutes, some beats ventricular
    python simulate.py --samples samples                    # a record of each class, as WFDB and as CSV

The heart vector in three dimensions is a sum of Gaussian waves: P, QRS, ST and T of every beat. Dower's matrix, varied
for each patient, projects it to the leads. Breathing turns and scales the vector. The electrodes add baseline wander,
mains hum and muscle noise. The same seed writes the same bytes, whatever the number of workers.

These recordings are for trying the toolkit. They are no evidence about patients or about the clinical worth of methods.

Sources
-------
McSharry, Clifford, Tarassenko, Smith (2003), IEEE Trans Biomed Eng 50:289: Gaussian waves, heart-rate spectrum.
Sameni, Clifford, Jutten, Shamsollahi (2007), EURASIP J Adv Signal Process 043407: the dipole in 3-D.
Dower, Machado, Osborne (1980), Clin Cardiol 3:87: heart vector to leads.
Mateo, Laguna (2000), IEEE Trans Biomed Eng 47:985: beats where the integral of the rate passes an integer.
Stridh, Sörnmo (2001), IEEE Trans Biomed Eng 48:105: fibrillatory waves as a modulated sawtooth.
Surawicz et al. (2009), Circulation 119:e235: criteria of bundle branch blocks.
"""

import argparse
import csv
import math
import multiprocessing
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb
from tqdm import tqdm

import script
from recipe import TWELVE_LEADS
from script import Stop

Floats = npt.NDArray[np.float64]
Row = dict[str, str | int]

INDEPENDENT = [0, 1, 6, 7, 8, 9, 10, 11]  # rows of TWELVE_LEADS that are measured; the other four follow from I and II
CLASSES = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")  # ST: sinus tachycardia
# SB, ST and 1dAVb imply sinus rhythm. 1dAVb with ST exists, but its P hides in the T wave, so nobody could label it.
IMPOSSIBLE = ({"RBBB", "LBBB"}, {"SB", "ST"}, {"SB", "AF"}, {"ST", "AF"}, {"1dAVb", "AF"}, {"1dAVb", "ST"})
FS = 500.0  # Hz, of the demo records
DURATION_S = 10.0
# Atrial beats in a cycle, the last of which the ventricles do not answer; growth of PR from beat to beat, in s.
AV_BLOCKS = {"2:1": (2, 0.0), "Mobitz I": (4, 0.06), "Mobitz II": (3, 0.0)}
MARK = "Simulated by simulate.py"
ADC_GAIN = 1000  # per mV
HOLTER_S, HOLTER_FS = 120.0, 250
SAMPLES = {"normal": (), **{name: (name,) for name in CLASSES}}  # record -> its labels
SAMPLE_SEED, SAMPLE_NOISE = 6, 0.5  # less noise than most: the finding is what is to be seen
RATE_BPM = {"sinus": (60, 95), "SB": (38, 55), "ST": (105, 150), "AF": (60, 140)}  # mean over a record
PVC_FRACTION = 0.15  # of the records
NOISY_FRACTION = 0.12  # of the records

# Heart vector (X left, Y down, Z back) to the independent leads, mV per mV.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)

# Each QRS has four waves. Columns: centre after the QRS onset and standard deviation, both as fractions of the QRS
# duration; then the peak X, Y, Z in mV.
QRS = {
    "normal": [
        [0.22, 0.085, -0.15, -0.05, -0.34],  # septum, left to right: r in V1, q in V6
        [0.46, 0.120, 1.15, 0.80, 0.15],  # both ventricles, the left one stronger
        [0.62, 0.105, 0.35, 0.20, 0.60],  # left free wall: S in V1 and V2
        [0.82, 0.075, -0.25, -0.10, 0.22],  # base: s in I and V6
    ],
    "RBBB": [  # begins like a normal QRS; this QRS is longer, so the same milliseconds are smaller fractions
        [0.14, 0.055, -0.15, -0.05, -0.34],
        [0.30, 0.080, 1.10, 0.75, 0.15],
        [0.41, 0.070, 0.32, 0.18, 0.45],
        [0.70, 0.125, -0.62, -0.05, -0.72],  # right ventricle, late and slowly: R' in V1, broad S in I and V6
    ],
    "LBBB": [
        [0.14, 0.065, 0.12, 0.12, -0.05],  # septum from right to left: no q in V6
        [0.36, 0.115, 0.90, 0.35, 0.70],
        [0.67, 0.115, 1.12, 0.15, 0.70],  # left free wall, late: the second peak of the notched R
        [0.86, 0.060, 0.22, 0.00, 0.20],
    ],
    "PVC from right": [  # outflow tract of the right ventricle: like LBBB, axis downward
        [0.18, 0.090, 0.15, 0.25, -0.10],
        [0.44, 0.140, 0.80, 1.15, 0.80],
        [0.66, 0.120, 0.55, 0.35, 0.60],
        [0.86, 0.070, 0.00, 0.00, 0.10],
    ],
    "PVC from left": [  # free wall of the left ventricle: like RBBB, axis upward
        [0.18, 0.090, 0.20, 0.05, -0.25],
        [0.44, 0.140, -0.65, -0.80, -1.05],
        [0.66, 0.120, -0.70, -0.30, -0.45],
        [0.86, 0.070, -0.15, 0.00, 0.00],
    ],
}
# Peaks (X, Y, Z) in mV of ST segment and T wave. They oppose a wide QRS (secondary repolarisation change).
ST_T = {
    "normal": [[0.02, 0.02, -0.03], [0.30, 0.20, -0.12]],
    "RBBB": [[0.02, 0.00, 0.03], [0.30, 0.18, 0.15]],
    "LBBB": [[-0.09, -0.02, -0.16], [-0.26, -0.04, -0.38]],
    "PVC from right": [[-0.08, -0.10, -0.10], [-0.35, -0.40, -0.40]],
    "PVC from left": [[0.08, 0.08, 0.12], [0.35, 0.30, 0.45]],
}
QRS_S = {  # shortest and longest duration
    "normal": (0.076, 0.104),
    "RBBB": (0.122, 0.160),
    "LBBB": (0.126, 0.170),
    "PVC from right": (0.140, 0.180),
    "PVC from left": (0.140, 0.180),
}
P = np.array([[0.035, 0.075, -0.045], [0.065, 0.050, 0.040]])  # peaks (X, Y, Z) in mV: right atrium, left atrium
BEFORE_S, AFTER_S = 0.60, 0.95  # window around an R peak; it holds the longest PR and the longest QT with their tails


@dataclass(frozen=True)
class Ventricles:
    """Activation and recovery of a patient's ventricles in one pattern."""

    qrs_s: float  # duration, from onset
    peak_s: float  # from onset to the longest heart vector, which is the R peak
    centre_s: Floats  # (4,) of the QRS waves, from onset
    width_s: Floats  # (4,) their standard deviations
    vectors: Floats  # (6, 3) mV: four QRS waves, ST, T


@dataclass(frozen=True)
class Patient:
    """The properties that all records of a patient share."""

    age: int  # years
    sex: str  # "F" or "M"
    conduction: tuple[str, ...]  # some of 1dAVb, RBBB, LBBB; present in each record whose rhythm allows it
    rhythm: str  # the usual one: "sinus", "SB", "AF" or "ST"
    pace: float  # 0..1, place of the heart rate in the range of its class
    breathing_hz: float
    breathing_arrhythmia: float  # relative change of the heart rate with breathing
    pr_s: float  # without 1dAVb, at 75 beats per minute
    long_pr_s: float  # with 1dAVb
    qtc_s: float  # corrected by Fridericia: QT with a narrow QRS at 60 beats per minute
    p_s: float  # duration of P
    p_vectors: Floats  # (2, 3) mV
    ventricles: dict[str, Ventricles]  # "normal", "RBBB", "LBBB", "PVC"
    fibrillation_hz: float
    fibrillation: Floats  # (2, 3) mV, two directions of the f waves, a quarter of a period apart
    projection: Floats  # (8, 3), heart vector to the independent leads
    mains_hz: float  # 50 or 60


def simulate_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: age, sex, usual findings, and an individual heart and torso."""
    sex = "F" if rng.random() < 0.5 else "M"
    rhythm = str(rng.choice(["sinus", "SB", "AF", "ST"], p=[0.48, 0.17, 0.19, 0.16]))
    block = str(rng.choice(["", "RBBB", "LBBB"], p=[0.64, 0.19, 0.17]))
    conduction = ("1dAVb",) * (rng.random() < 0.32) + ((block,) if block else ())
    older = 12 if conduction or rhythm == "AF" else 0
    age = int(np.clip(rng.normal(50 + older, 16), 18, 95))

    # The axis turns left with age; a wide QRS has its own axis and turns half as much.
    axis = np.clip(rng.normal(5 - 0.3 * (age - 50), 18), -50, 40)  # degrees, added to the templates' 35
    transition = rng.normal(0, 10)  # degrees around the long axis of the body; sets where R exceeds S in V1..V6
    voltage = math.exp(rng.normal(0.04 if sex == "M" else -0.08, 0.20)) * (1 - 0.003 * (age - 50))
    t_voltage = voltage**0.5 * math.exp(rng.normal(0.05 if sex == "M" else -0.10, 0.30))
    patterns = {name: name for name in ("normal", "RBBB", "LBBB")}
    patterns["PVC"] = str(rng.choice(["PVC from right", "PVC from left"]))
    ventricles = {}
    for name, pattern in patterns.items():
        rotation = rotate(axis if name == "normal" else axis / 2, transition)
        ventricles[name] = _ventricles(rng, pattern, rotation, voltage, t_voltage, sex)

    return Patient(
        age=age,
        sex=sex,
        conduction=conduction,
        rhythm=rhythm,
        pace=rng.random(),
        breathing_hz=rng.uniform(0.18, 0.33),
        breathing_arrhythmia=rng.uniform(0.01, 0.13) * np.clip((85 - age) / 60, 0.15, 1),  # decreases with age
        pr_s=float(np.clip(rng.normal(0.150 + 0.0003 * (age - 50), 0.016), 0.124, 0.190)),
        long_pr_s=rng.uniform(0.210, 0.320),
        qtc_s=float(np.clip(rng.normal(0.412 if sex == "F" else 0.400, 0.015), 0.37, 0.45)),
        p_s=rng.uniform(0.085, 0.115),
        p_vectors=_vary(rng, P, 0.15) @ rotate(axis / 2, 0).T * math.exp(rng.normal(-0.05, 0.35)),
        ventricles=ventricles,
        fibrillation_hz=rng.uniform(4.5, 8.0),
        fibrillation=_vary(rng, np.array([[-0.45, 0.50, -0.75], [0.25, 0.20, -0.15]]), 0.3)
        * (0.05 * math.exp(min(rng.normal(0, 0.5), 0.8))),  # mV, from fine to coarse; V1 and II show them best
        projection=DOWER * rng.normal(1, 0.10, (8, 1)) + rng.normal(0, 0.03, (8, 3)),
        mains_hz=float(rng.choice([50.0, 60.0])),
    )


def rotate(frontal_deg: float, horizontal_deg: float) -> Floats:
    """Return the rotation (3, 3) in the frontal plane (left to down), then in the horizontal plane (left to back)."""
    a, b = math.radians(frontal_deg), math.radians(horizontal_deg)
    frontal = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    horizontal = np.array([[math.cos(b), 0, -math.sin(b)], [0, 1, 0], [math.sin(b), 0, math.cos(b)]])
    return np.asarray(horizontal @ frontal)


def with_tall_p(patient: Patient, height_mv: float) -> Patient:
    """Return the patient with P waves higher by `height_mv` in V1, and unchanged in II."""
    lead_ii, lead_v1 = patient.projection[1], patient.projection[2]
    across = lead_v1 - (lead_v1 @ lead_ii) / (lead_ii @ lead_ii) * lead_ii  # (3,) seen by V1 and not by II
    return replace(patient, p_vectors=patient.p_vectors + height_mv / (lead_v1 @ across) * across)


def _vary(rng: np.random.Generator, vectors: Floats, spread: float) -> Floats:
    """Add noise to vectors (N, 3); its standard deviation is `spread` times the length of each vector."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors + spread * length * rng.normal(size=vectors.shape))


def _ventricles(
    rng: np.random.Generator, pattern: str, rotation: Floats, voltage: float, t_voltage: float, sex: str
) -> Ventricles:
    """Draw a patient's own form of one pattern of QRS and ST_T."""
    waves = np.array(QRS[pattern])  # (4, 5)
    qrs = _vary(rng, waves[:, 2:], 0.12) * voltage
    qrs_s = rng.uniform(*QRS_S[pattern]) - (0.004 if sex == "F" and pattern == "normal" else 0)
    if pattern == "normal" and rng.random() < 0.06:  # incomplete RBBB: r' in V1, but a narrow QRS, so no label
        qrs[3] = [-0.25, -0.05, -0.40]
        qrs_s = rng.uniform(0.098, 0.110)
    st_t = _vary(rng, np.array(ST_T[pattern]), 0.15) * t_voltage
    if pattern == "normal" and rng.random() < 0.08:  # flat or inverted T from other causes
        st_t[1] *= rng.uniform(-0.5, 0.3)
    centre_s = waves[:, 0] * rng.normal(1, 0.03, 4) * qrs_s
    width_s = waves[:, 1] * rng.normal(1, 0.04, 4) * qrs_s
    t = np.arange(0, qrs_s, 1e-4)  # s
    path = np.exp(-0.5 * ((t[:, None] - centre_s) / width_s) ** 2) @ qrs  # (time, 3)
    peak_s = t[np.argmax((path**2).sum(axis=1))]  # a rotation does not change it
    return Ventricles(qrs_s, float(peak_s), centre_s, width_s, np.concatenate([qrs, st_t]) @ rotation.T)


def draw_labels(rng: np.random.Generator, patient: Patient) -> tuple[str, ...]:
    """Draw the labels of one record, in the order of CLASSES. Every fifth record, on average, draws a new rhythm."""
    rhythm = patient.rhythm
    if rng.random() < 0.2:
        rhythm = str(rng.choice(["sinus", "SB", "AF", "ST"], p=[0.55, 0.15, 0.15, 0.15]))
    found = {*patient.conduction, rhythm}
    if rhythm in ("AF", "ST"):
        found -= {"1dAVb"}  # see IMPOSSIBLE; in tachycardia the AV node conducts faster
    return tuple(name for name in CLASSES if name in found)


def check_labels(labels: Iterable[str]) -> None:
    """Raise ValueError for an unknown label or for a pair in IMPOSSIBLE."""
    given = set(labels)
    if unknown := given - set(CLASSES):
        raise ValueError(f"labels {sorted(unknown)}: unknown; choose from {', '.join(CLASSES)}")
    for pair in IMPOSSIBLE:
        if pair <= given:
            raise ValueError(f"labels {' and '.join(sorted(pair))}: impossible in one record; leave one out")


def simulate_record(
    rng: np.random.Generator,
    patient: Patient,
    labels: Sequence[str],
    duration_s: float,
    fs: float,
    noise: float = 1.0,
    av_block: str = "",
) -> tuple[Floats, npt.NDArray[np.int64], list[str]]:
    """Simulate one recording of a patient.

    Parameters
    ----------
    rng : the source of everything that differs between this patient's records
    patient : Patient
    labels : names from CLASSES in any order; empty for a normal record
    duration_s : float
    fs : float, Hz, at least 125
    noise : float, factor on baseline wander, mains hum, muscle and amplifier noise; 0 for a clean signal
    av_block : a key of AV_BLOCKS, or empty; the demo has none. It takes the place of PVCs

    Returns
    -------
    signal : (12, T) float64, mV, rows as TWELVE_LEADS, T = round(duration_s * fs)
    r_peaks : (N,) int64, ascending; the sample where the heart vector of each QRS is longest, also of a PVC. A beat
        whose R peak lies outside the record is not listed, though its waves may reach into the record
    symbols : N WFDB beat codes: V for a PVC, otherwise R with RBBB, L with LBBB, N without a block

    Raises
    ------
    ValueError
        A label is unknown, labels are impossible together, there are no samples, fs is below 125 Hz, or the block is
        unknown or comes with AF.
    """
    check_labels(labels)
    if av_block and (av_block not in AV_BLOCKS or "AF" in labels):
        raise ValueError(f"av_block {av_block!r}: choose from {', '.join(AV_BLOCKS)}, without the label AF")
    n_samples = round(duration_s * fs) if math.isfinite(duration_s * fs) else 0
    if n_samples < 1:
        raise ValueError(f"duration_s {duration_s}: no sample at fs {fs} Hz; give a longer, finite duration")
    if fs < 125:
        raise ValueError(f"fs {fs} Hz: must be at least 125 Hz, to represent mains hum of 60 Hz and the QRS")
    t = np.arange(n_samples) / fs
    breath = rng.uniform(0, 2 * np.pi)  # phase at the start
    breathing = np.sin(2 * np.pi * patient.breathing_hz * t + breath)  # (T,), -1..1

    r_s = _rhythm(rng, patient, labels, duration_s, breath)
    blocked, delay_s = np.zeros(len(r_s), bool), np.zeros(len(r_s))
    if av_block:
        ectopic = np.zeros(len(r_s), bool)
        n_atrial, slower_s = AV_BLOCKS[av_block]
        place = np.arange(len(r_s)) % n_atrial
        blocked = place == n_atrial - 1
        delay_s = np.where(blocked, 0, slower_s * place)
        r_s = r_s + delay_s
    else:
        r_s, ectopic = _place_pvcs(rng, r_s, duration_s)
    heart = _beats(rng, patient, labels, r_s, ectopic, n_samples, fs, blocked, delay_s)  # (3, T) mV
    if "AF" in labels:
        heart += _fibrillation(rng, patient, t)
    heart = _breathe(rng, heart, breathing)
    eight = patient.projection @ heart  # (3, T) -> (8, T)
    if noise:
        eight += noise * _disturbances(rng, patient, t, breathing, fs)

    peaks = np.rint(r_s * fs).astype(np.int64)
    inside = (peaks >= 0) & (peaks < n_samples) & ~blocked
    usual = "R" if "RBBB" in labels else "L" if "LBBB" in labels else "N"
    symbols = ["V" if early else usual for early in ectopic[inside]]
    return twelve_leads(eight), peaks[inside], symbols


def _breathe(rng: np.random.Generator, heart: Floats, breathing: Floats) -> Floats:
    """Turn and scale the heart vector (3, T) with breathing (T,), -1..1 (as in Sameni 2007)."""
    angle = np.radians(rng.uniform(1, 6)) * breathing  # the diaphragm turns the heart
    x, y = heart[0], heart[1]
    heart = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, heart[2]])
    return np.asarray(heart * (1 + rng.uniform(0.01, 0.07) * breathing))  # the lungs insulate it


def _rhythm(
    rng: np.random.Generator, patient: Patient, labels: Sequence[str], duration_s: float, breath: float
) -> Floats:
    """Draw the times (N,) in s of the R peaks without PVCs, from 4 s before the record to 4 s after it."""
    rhythm = next((name for name in ("SB", "AF", "ST") if name in labels), "sinus")
    low, high = RATE_BPM[rhythm]
    rate = (low + (high - low) * np.clip(patient.pace + rng.normal(0, 0.12), 0, 1)) / 60  # Hz
    if rhythm == "AF":  # independent intervals; the gamma distribution is skewed like them
        variation = rng.uniform(0.11, 0.28)
        intervals = rng.gamma(variation**-2, variation**2 / rate, math.ceil((duration_s + 10) * rate * 1.5) + 10)
        return np.asarray(np.cumsum(np.clip(intervals, 0.33, 2.2)) - 4 - rng.uniform(0, 1 / rate))
    t = np.arange(-4, duration_s + 4, 0.01)
    calm = 0.4 if rhythm == "ST" else 1.0  # a fast heart has little vagal tone and varies less
    slow = rng.uniform(0.005, 0.03) * np.sin(2 * np.pi * 0.1 * t + rng.uniform(0, 2 * np.pi))  # baroreflex, 0.1 Hz
    fast = patient.breathing_arrhythmia * np.sin(2 * np.pi * patient.breathing_hz * t + breath)
    beats = np.cumsum(rate * (1 + calm * (slow + fast))) * 0.01 + rng.random()  # each integer is a beat
    return np.asarray(np.interp(np.arange(math.ceil(beats[0]), math.floor(beats[-1]) + 1), beats, t))


def _place_pvcs(rng: np.random.Generator, r_s: Floats, duration_s: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Make some beats come early as PVCs, in PVC_FRACTION of the records.

    The sinus beat that a PVC replaces does not reach the ventricles, and the next one comes on time. The pause is
    therefore fully compensatory. Return the new times (N,) and which beats are PVCs (N,).
    """
    ectopic = np.zeros(len(r_s), bool)
    if rng.random() >= PVC_FRACTION:
        return r_s, ectopic
    inside = np.flatnonzero((r_s > 0.6) & (r_s < duration_s - 0.1))
    inside = inside[(inside > 0) & (inside < len(r_s) - 1)]
    r_s = r_s.copy()
    n_most = min(rng.integers(1, 5), len(inside) // 3)  # at most a third: the usual rhythm stays visible
    for beat in rng.permutation(inside)[:n_most]:
        if not ectopic[beat - 1 : beat + 2].any():
            interval = r_s[beat] - r_s[beat - 1]
            early_s = min(max(rng.uniform(0.58, 0.78) * interval, 0.36), 0.95 * interval)  # refractory until 0.36 s
            r_s[beat] = r_s[beat - 1] + early_s
            ectopic[beat] = True
    return r_s, ectopic


def _beats(
    rng: np.random.Generator,
    patient: Patient,
    labels: Sequence[str],
    r_s: Floats,
    ectopic: npt.NDArray[np.bool_],
    n_samples: int,
    fs: float,
    blocked: npt.NDArray[np.bool_],
    delay_s: Floats,
) -> Floats:
    """Return the heart vector (3, T) in mV of all beats. A beat has eight waves: two P, four QRS, ST and T.

    A blocked beat has its P waves alone. `delay_s` lengthens the PR interval.
    """
    n_beats = len(r_s)
    usual = patient.ventricles["RBBB" if "RBBB" in labels else "LBBB" if "LBBB" in labels else "normal"]
    kinds = [patient.ventricles["PVC"] if early else usual for early in ectopic]
    qrs_s = np.array([kind.qrs_s for kind in kinds])  # (N,)
    onset = np.array([-kind.peak_s for kind in kinds])  # (N,) s from the R peak to the QRS onset, negative

    rr = np.diff(r_s, prepend=2 * r_s[0] - r_s[1])  # (N,) s, the interval before each beat
    mean_rr = float(rr.mean())
    # QT follows the last interval only in part. It adapts to the mean rate within about a minute (Pueyo 2004, IEEE
    # Trans Biomed Eng 51:1765).
    qt = patient.qtc_s * np.cbrt(0.75 * mean_rr + 0.25 * rr) + 0.7 * (qrs_s - 0.09)  # (N,) s
    t_peak = onset + qt * 0.78  # (N,) s after the R peak
    t_width = np.stack([0.135 * qt, 0.088 * qt])  # T rises slowly, falls faster and ends 2.5 deviations after its peak

    # A fast heart has a shorter PR interval. The usual PR stays below 200 ms, the limit of 1dAVb, even with its jitter.
    usual_pr = float(np.clip(patient.pr_s + 0.025 * (mean_rr - 0.8), 0.12, 0.192))
    pr = (patient.long_pr_s if "1dAVb" in labels else usual_pr) + rng.normal(0, 0.0015, n_beats)  # (N,) s
    pr += delay_s
    p_width = patient.p_s / 7  # deviation: the atria's waves peak 2.5 deviations from the onset and from the end of P
    st = qrs_s + 0.45 * (t_peak - onset - qrs_s)  # s after the QRS onset, between the end of QRS and the peak of T

    centre = np.empty((n_beats, 8))  # s after the R peak
    width = np.empty((2, n_beats, 8))  # s, before and after the centre
    centre[:, 0] = onset - pr + 2.5 * p_width
    centre[:, 1] = onset - pr + 4.5 * p_width
    width[:, :, :2] = p_width
    centre[:, 2:6] = onset[:, None] + np.stack([kind.centre_s for kind in kinds])
    width[:, :, 2:6] = np.stack([kind.width_s for kind in kinds])
    centre[:, 6] = onset + st
    width[:, :, 6] = 0.30 * (t_peak - onset - qrs_s) + 0.005
    centre[:, 7] = t_peak
    width[:, :, 7] = t_width
    vectors = np.empty((n_beats, 8, 3))  # mV
    vectors[:, :2] = patient.p_vectors
    vectors[:, 2:] = np.stack([kind.vectors for kind in kinds])
    vectors[blocked, 2:] = 0
    vectors[:, :2] *= np.where(ectopic | ("AF" in labels), 0.0, 1.0)[:, None, None]  # PVCs and AF have no P wave
    vectors *= rng.normal(1, 0.015, (n_beats, 1, 1))

    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    first = np.rint(r_s * fs).astype(int) - before  # (N,) first sample of each beat's window
    near = np.flatnonzero((first < n_samples) & (first + before + after > 0))
    first = first[near]
    place = (first[:, None] + np.arange(before + after)) / fs - r_s[near, None]  # (n, S) s after the R peak
    distance = place[:, None] - centre[near, :, None]  # (n, 8, S) s
    distance /= np.where(distance < 0, width[0, near][:, :, None], width[1, near][:, :, None])
    waves = np.matmul(vectors[near].transpose(0, 2, 1), np.exp(-0.5 * distance**2))  # (n, 3, S) mV

    heart = np.zeros((3, n_samples + 2 * (before + after)))  # room for a window on both sides
    for start, wave in zip(first + before + after, waves, strict=True):
        heart[:, start : start + before + after] += wave
    return np.ascontiguousarray(heart[:, before + after : -(before + after)])


def _fibrillation(rng: np.random.Generator, patient: Patient, t: Floats) -> Floats:
    """Return f waves (3, T) in mV: a sawtooth of three harmonics whose rate and size wander (Stridh 2001)."""
    wander = rng.uniform(0.1, 0.4) * np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * t + rng.uniform(0, 2 * np.pi))
    wander += rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * rng.uniform(0.5, 1.2) * t + rng.uniform(0, 2 * np.pi))
    phase = 2 * np.pi * patient.fibrillation_hz * t + 2 * wander + rng.uniform(0, 2 * np.pi)
    size = 1 + 0.35 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * t + rng.uniform(0, 2 * np.pi))
    k = np.arange(1, 4)[:, None]
    shifted = np.stack([(np.sin(k * p) / k).sum(axis=0) for p in (phase, phase + np.pi / 2)])  # (2, T)
    return np.asarray(patient.fibrillation.T @ (size * shifted))


def _disturbances(rng: np.random.Generator, patient: Patient, t: Floats, breathing: Floats, fs: float) -> Floats:
    """Return noise (8, T) in mV of the independent leads. It arises at nine electrodes, so the leads share it."""
    n_samples = len(t)
    level = math.exp(rng.normal(0.15, 0.55))
    if noisy := rng.random() < NOISY_FRACTION:
        level *= 3
    # baseline wander: the moving chest and five slow waves; faster ones are weaker; each electrode mixes its own
    f = rng.uniform(0.03, 0.6, (5, 1))  # Hz
    slow = np.concatenate([np.sin(2 * np.pi * f * t), np.cos(2 * np.pi * f * t)])  # (10, T)
    weight = rng.normal(0, 0.03, (9, 10)) / np.tile(1 + 4 * f[:, 0], 2)
    electrodes: Floats = level * (weight @ slow + rng.normal(0, 0.015, (9, 1)) * breathing)  # (9, T)
    # mains hum: the same phase and another size at each electrode, with some third harmonic
    phase = 2 * np.pi * patient.mains_hz * t + rng.uniform(0, 2 * np.pi)
    hum = np.sin(phase) + (0.15 * np.sin(3 * phase) if 3 * patient.mains_hz < fs / 2 else 0)
    electrodes += level * 0.006 * rng.gamma(1.0, 1.0) * rng.normal(0, 1, (9, 1)) * hum
    # muscle: noise from about 20 to 120 Hz, in bursts
    hz = np.fft.rfftfreq(n_samples, 1 / fs)
    shape = hz**2 / (hz**2 + 25**2) / (1 + (hz / 90) ** 2)
    spectrum = rng.normal(size=(9, len(hz))) + 1j * rng.normal(size=(9, len(hz)))
    muscle = np.fft.irfft(spectrum * shape, n_samples)  # (9, T)
    muscle /= max(float(muscle.std()), 1e-12)
    burst = 1 + rng.uniform(0, 2.5) * np.exp(-0.5 * ((t - rng.uniform(0, t[-1])) / rng.uniform(0.3, 2)) ** 2)
    electrodes += level * 0.007 * rng.gamma(2.0, 0.5) * rng.gamma(2.0, 0.5, (9, 1)) * burst * muscle
    electrodes += 0.002 * rng.normal(size=(9, n_samples))  # amplifier
    if noisy:  # an electrode is moved and settles
        loose, start = rng.integers(9), rng.uniform(0, t[-1])
        electrodes[loose] += rng.normal(0, 0.4) * np.where(t < start, 0, np.exp((start - t) / rng.uniform(0.3, 2)))
    right_arm, left_arm, leg = electrodes[:3]
    wilson = electrodes[:3].mean(axis=0)  # the chest leads' reference
    return np.concatenate([[left_arm - right_arm, leg - right_arm], electrodes[3:] - wilson])


def twelve_leads(eight: Floats) -> Floats:
    """Derive TWELVE_LEADS (12, T) from the leads I, II, V1..V6 (8, T), as Einthoven and Goldberger define them."""
    one, two = eight[0], eight[1]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, eight[2:]])


def is_simulated(comments: Iterable[str]) -> bool:
    """Tell by the comments of a header whether `write_patient` has made the record."""
    return any(comment.strip().startswith(MARK) for comment in comments)


def write_signal(folder: Path, record: str, signal: Floats, fs: float, comments: Iterable[str]) -> None:
    """Write a signal (12, T) in mV as `.hea` and `.dat` in format 16, with the same bytes as wfdb.wrsamp.

    As in a recorder, III, aVR, aVL and aVF are computed from the digitised I and II: III = II - I to the last bit.
    """
    # wfdb.wrsamp takes 20 ms per record, this code 1 ms: wrsamp looks up each header field in a pandas table
    digital = np.rint(twelve_leads(np.rint(signal[INDEPENDENT] * ADC_GAIN)))
    digital = np.clip(digital, -32767, 32767).astype("<i2")  # (12, T); -32768 means invalid
    checksums = digital.sum(axis=1, dtype=np.int64) % 65536
    lines = [f"{record} {len(TWELVE_LEADS)} {fs:g} {signal.shape[1]}"]
    for lead, first, checksum in zip(TWELVE_LEADS, digital[:, 0], checksums, strict=True):
        lines.append(f"{record}.dat 16 {ADC_GAIN}.0(0)/mV 16 0 {first} {checksum} 0 {lead}")
    lines += [f"# {comment}" for comment in comments]
    (folder / f"{record}.dat").write_bytes(digital.T.tobytes())  # all leads of the first sample, then of the next
    (folder / f"{record}.hea").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def write_patient(folder: Path, seed: int, number: int) -> list[Row]:
    """Write the one to three records of patient `number` (from 1) and return their rows of records.csv."""
    # The patient's key ends in 0, the keys of the records end in 1, 2, 3. No record may have 0: SeedSequence pads with
    # zeros, so (seed, number) and (seed, number, 0) are the same key.
    patient_rng = np.random.default_rng([seed, number, 0])
    patient = simulate_patient(patient_rng)
    name = f"sim{number:05d}"
    rows: list[Row] = []
    for k in range(1, int(patient_rng.integers(1, 4)) + 1):
        rng = np.random.default_rng([seed, number, k])
        labels = draw_labels(rng, patient)
        signal, r_peaks, symbols = simulate_record(rng, patient, labels, DURATION_S, FS)
        record = f"{name}_{k}"
        write_signal(folder, record, signal, FS, _comments(patient, name, labels))
        wfdb.wrann(record, "atr", r_peaks, symbols, fs=FS, write_dir=str(folder))
        found: Row = {label: int(label in labels) for label in CLASSES}
        rows.append({"record": record, "patient": name, "age": patient.age, "sex": patient.sex, **found})
    return rows


def _comments(patient: Patient, name: str, labels: Sequence[str]) -> list[str]:
    """Say in a header who the patient is and what the record shows."""
    return [
        f"Age: {patient.age}",
        f"Sex: {patient.sex}",
        f"Patient: {name}",
        f"Labels: {','.join(labels)}".rstrip(),
        f"{MARK}: not a recording of a person, no clinical evidence",
    ]


def write_samples(folder: Path, overwrite: bool = False) -> list[str]:
    """Write a record of each class and a normal one, the same bytes every time, and return their names.

    Each record is a WFDB record with its beats annotated, and the same signal as CSV: time in seconds and lead1 to
    lead12 in mV, in the order of TWELVE_LEADS. A record has its own label alone and no ventricular beats.

    Raises
    ------
    Stop
        The folder holds a file of one of these names and `overwrite` is False, cannot be written to, or is in use.
    """
    names = [f"{record}{suffix}" for record in SAMPLES for suffix in (".hea", ".dat", ".atr", ".csv")]
    with script.writing(folder), script.hold(folder):
        for path in (folder / name for name in names):
            if path.exists() and not overwrite:
                raise Stop(f"{path}: already exists; choose another folder, or replace it with --overwrite")
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            for record, labels in SAMPLES.items():
                _write_sample(Path(aside), record, labels)
            for name in names:
                (Path(aside) / name).replace(folder / name)
    return list(SAMPLES)


def _write_sample(folder: Path, record: str, labels: Sequence[str]) -> None:
    """Write the record of the first patient whose record with these labels has no ventricular beat."""
    number, symbols = 0, ["V"]
    while "V" in symbols:
        number += 1
        rng = np.random.default_rng([SAMPLE_SEED, number])
        patient = simulate_patient(rng)
        signal, r_peaks, symbols = simulate_record(rng, patient, labels, DURATION_S, FS, SAMPLE_NOISE)
    write_signal(folder, record, signal, FS, _comments(patient, record, labels))
    wfdb.wrann(record, "atr", r_peaks, symbols, fs=FS, write_dir=str(folder))
    digital = np.frombuffer((folder / f"{record}.dat").read_bytes(), "<i2").reshape(-1, len(TWELVE_LEADS))
    columns = np.column_stack([np.arange(len(digital)) / FS, digital / ADC_GAIN])
    heading = ",".join(["time", *(f"lead{number}" for number in range(1, len(TWELVE_LEADS) + 1))])
    np.savetxt(folder / f"{record}.csv", columns, "%.3f", ",", header=heading, comments="")


def write_holter(header: Path, seed: int, overwrite: bool = False) -> list[str]:
    """Write a record of two leads for two minutes, with its beats annotated; return their symbols.

    Raises
    ------
    Stop
        One of its files exists and `overwrite` is False.
    """
    for path in (header.with_suffix(suffix) for suffix in (".hea", ".dat", ".atr")):
        if path.exists() and not overwrite:
            raise Stop(f"{path}: already exists; choose another name, or replace it with --overwrite")
    rng = np.random.default_rng(seed)
    signal, r_peaks, symbols = simulate_record(rng, simulate_patient(rng), (), HOLTER_S, HOLTER_FS)
    two = signal[[TWELVE_LEADS.index("II"), TWELVE_LEADS.index("V1")]]
    header.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        header.stem, HOLTER_FS, ["mV"] * 2, ["MLII", "V1"], two.T, fmt=["212"] * 2, adc_gain=[200.0] * 2,
        baseline=[0] * 2, write_dir=str(header.parent), comments=[f"{MARK}: not a recording of a person"],
    )  # fmt: skip
    wfdb.wrann(header.stem, "atr", r_peaks, symbols, fs=HOLTER_FS, write_dir=str(header.parent))
    return symbols


def write_demo(
    folder: Path, n_patients: int = 600, seed: int = 0, workers: int = 1, overwrite: bool = False
) -> list[Row]:
    """Write a simulated dataset: `.hea`, `.dat` and `.atr` per record, and records.csv.

    records.csv has a row per record: record, patient, age, sex, and 0 or 1 for each of CLASSES. It is written last and
    appears whole, so a folder with records.csv holds a complete set.

    Parameters
    ----------
    folder : created if missing
    n_patients : int, 1 to 3 records each
    seed : int, at least 0; the same seed gives the same bytes. A larger set begins with the patients of a smaller one
    workers : int, number of processes; 1 writes in this process
    overwrite : replace a complete set; its records are deleted first

    Returns
    -------
    The rows of records.csv.

    Raises
    ------
    FileExistsError
        The folder holds a complete set and `overwrite` is False.
    ValueError
        n_patients or workers is below 1, or seed is below 0.
    Stop
        Another process writes to the folder.
    """
    folder = Path(folder)
    for name, value, least in (("n_patients", n_patients, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")
    with script.hold(folder):
        index = folder / "records.csv"
        if index.exists():
            if not overwrite:
                raise FileExistsError(f"{index}: already exists; choose another folder, or replace it with --overwrite")
            _delete_set(index)
        rows = _write_patients(folder, n_patients, seed, workers)
        with script.aside(index) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return rows


def _write_patients(folder: Path, n_patients: int, seed: int, workers: int) -> list[Row]:
    job = partial(write_patient, folder, seed)
    numbers = range(1, n_patients + 1)
    rows: list[Row] = []
    with tqdm(total=n_patients, unit="patient", disable=None) as progress:
        if workers == 1:
            for number in numbers:
                rows += job(number)
                progress.update()
        else:  # spawn: a fork would copy the locks of threads that the caller's libraries have started
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for found in pool.imap(job, numbers, chunksize=8):  # in order
                    rows += found
                    progress.update()
    return rows


def _delete_set(index: Path) -> None:
    """Delete the index of a set (records.csv), then the records that it names."""
    with index.open(newline="") as file:
        names = [row["record"] for row in csv.DictReader(file)]
    index.unlink()
    for name in names:
        for suffix in (".hea", ".dat", ".atr"):
            (index.parent / f"{name}{suffix}").unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the demo dataset as the command line asks."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--patients", type=int, default=600, help="how many, 1 to 3 records each (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    kinds.add_argument("--holter", type=Path, metavar="FILE", help="instead, one record of two leads for two minutes")
    kinds.add_argument("--samples", type=Path, metavar="FOLDER", help="instead, a record of each class, always equal")
    options = parser.parse_args(argv)
    if options.samples:
        records = write_samples(options.samples, options.overwrite)
        print(f"wrote {len(records)} samples to {options.samples}: {', '.join(records)}, each as .hea and .csv")
        return
    if options.holter:
        symbols = write_holter(options.holter, options.seed, options.overwrite)
        print(f"wrote {options.holter}: {len(symbols)} beats, {symbols.count('V')} of them ventricular")
        return
    print(f"writing {options.patients} simulated patients (seed {options.seed}) to {options.out}", flush=True)
    rows = write_demo(options.out, options.patients, options.seed, options.workers, options.overwrite)
    counts = {name: sum(int(row[name]) for row in rows) for name in CLASSES}
    counts["normal"] = sum(not any(row[name] for name in CLASSES) for row in rows)
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"wrote {len(rows):,} records of {DURATION_S:.0f} s at {FS:.0f} Hz: {found}")


if __name__ == "__main__":
    script.run(main)

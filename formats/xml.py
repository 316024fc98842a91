"""ECG in XML: HL7 aECG, GE MUSE, Philips. Entities are refused, which could make a small file fill the memory."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing, moment, optional, with_derived

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the rhythm of a recording, and not who the patient is; the root element tells the format.

    Raises
    ------
    pqrst.FormatError
        XML that is damaged, has entities or is of another kind; leads of several rates; numbers that are none.
    """
    parser = optional("defusedxml.ElementTree", path, "XML")
    try:
        root = parser.parse(path).getroot()
    except FileNotFoundError:
        raise
    except Exception as error:  # of the parser, and those for entities
        raise pqrst.FormatError(f"{path}: not XML that is read: {str(error).splitlines()[0]}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    kind = root.tag.lower()
    readers = {"annotatedecg": _aecg, "restingecg": _muse, "restingecgdata": _philips}
    if kind not in readers:
        known = "AnnotatedECG (HL7), RestingECG (GE MUSE), restingecgdata (Philips)"
        raise pqrst.FormatError(f"{path}: is XML with {root.tag} at its root; what is read: {known}")
    try:
        return readers[kind](path, root)
    except pqrst.FormatError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise pqrst.FormatError(f"{path}: is damaged: {str(error).splitlines()[0]}") from error


def _text(element: Element, name: str, default: str = "") -> str:
    """Return the text of the first element of a name below this one."""
    found = next(element.iter(name), None)
    return (found.text or "").strip() if found is not None else default


# ------------------------------------------------------------------------------------------------ HL7 aECG


def _aecg(path: Path, root: Element) -> Tracing:
    """Read the first series of an annotated ECG, ANSI/HL7 V3 ECG R1, without the beats derived from it."""
    series = [each for component in root.iter("component") for each in component.findall("series")]
    if not series:
        raise pqrst.FormatError(f"{path}: has no series")
    signals: list[Signal] = []
    start, rate = "", None
    for sequence in _rhythm(series[0]):
        code, value = sequence.find("code"), sequence.find("value")
        if code is None or value is None:
            raise pqrst.FormatError(f"{path}: has a sequence without code or value")
        name = code.get("code", "")
        if name.startswith("TIME_"):
            increment, head = value.find("increment"), value.find("head")
            if increment is None:
                raise pqrst.FormatError(f"{path}: does not tell the time between samples")
            rate = 1 / (float(increment.get("value", "")) * SECONDS[increment.get("unit", "s")])
            start = start or moment(head.get("value", "") if head is not None else "")
        else:
            signals.append(_of_lead(name, value))
    rate = round(rate, 9) if rate else None
    told = (f"{path}: {len(series) - 1} further series are left out",) if len(series) > 1 else ()
    return Tracing([signal._replace(fs=rate) for signal in signals], start_time=start, warnings=told)


def _rhythm(series: Element) -> Iterator[Element]:
    """Give the sequences of a series that are not derived from others."""
    for component in series.findall("component"):
        for sequences in component.findall("sequenceSet"):
            for place in sequences.findall("component"):
                yield from place.findall("sequence")


def _of_lead(name: str, value: Element) -> Signal:
    origin, scale = value.find("origin"), value.find("scale")
    digits = np.array((_text(value, "digits")).split(), np.float64)
    if scale is None:
        raise ValueError(f"lead {name} has no scale")
    unit = scale.get("unit") or None
    offset = float(origin.get("value", 0)) if origin is not None else 0.0
    if origin is not None and origin.get("unit", unit) != unit:
        raise ValueError(f"lead {name} has its origin in {origin.get('unit')} and its scale in {unit}")
    return Signal(name.removeprefix("MDC_ECG_LEAD_"), digits * float(scale.get("value", "")) + offset, None, unit)


# ------------------------------------------------------------------------------------------------ GE MUSE


def _muse(path: Path, root: Element) -> Tracing:
    """Read the rhythm waveform of a MUSE export: 16-bit numbers in Base64."""
    waveforms = list(root.iter("Waveform"))
    rhythm = [each for each in waveforms if _text(each, "WaveformType").lower() == "rhythm"]
    if not rhythm:
        kinds = ", ".join(_text(each, "WaveformType") or "one without a type" for each in waveforms)
        raise pqrst.FormatError(f"{path}: has no rhythm waveform: {kinds or 'it has none at all'}")
    waveform = rhythm[0]
    rate = float(_text(waveform, "SampleBase")) * 10.0 ** float(_text(waveform, "SampleExponent", "0") or 0)
    signals = []
    for lead in waveform.iter("LeadData"):
        name, unit = _text(lead, "LeadID"), _text(lead, "LeadAmplitudeUnits")
        codes = _base64(_text(lead, "WaveFormData"))
        expected = _text(lead, "LeadSampleCountTotal")
        if expected and int(expected) != len(codes):
            raise pqrst.FormatError(f"{path}: lead {name} has {len(codes)} samples, expected {expected}")
        values = codes * float(_text(lead, "LeadAmplitudeUnitsPerBit"))
        signals.append(
            Signal(name, values, rate, {"MICROVOLTS": "uV", "MILLIVOLTS": "mV"}.get(unit.upper(), unit) or None)
        )
    start = f"{_text(root, 'AcquisitionTime')} {_text(root, 'AcquisitionDate').replace('-', '/')}".strip()
    return Tracing(with_derived(signals), start_time=start)


def _base64(text: str) -> NDArray[np.float64]:
    """Return the 16-bit numbers that Base64 holds, low byte first."""
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its Base64 is damaged: {error}") from error
    return np.frombuffer(raw, "<i2").astype(np.float64)


# ------------------------------------------------------------------------------------------------ Philips


def _philips(path: Path, root: Element) -> Tracing:
    """Read a Philips (Sierra) ECG with the package sierraecg."""
    sierraecg = optional("sierraecg", path, "Philips XML")
    resolution = _text(root, "resolution") or _text(root, "signalresolution")
    waveforms = next(root.iter("parsedwaveforms"), None)
    if waveforms is None or "XLI" not in (waveforms.get("compressmethod"), waveforms.get("compression")):
        raise pqrst.FormatError(f"{path}: has no waveform with XLI compression, which is what is read of Philips ECG")
    try:
        content: Any = sierraecg.read_file(str(path))
    except Exception as error:  # the package raises many types of errors
        raise pqrst.FormatError(f"{path}: not a Philips ECG that can be read: {error}") from error
    scale = float(resolution) if resolution else 5.0  # uV, of all versions that the package reads
    signals = [
        Signal(lead.label, np.asarray(lead.samples, np.float64) * scale, float(lead.sampling_freq), "uV")
        for lead in content.leads
    ]
    return Tracing(signals)

"""DICOM waveforms, PS3.3 C.10.9: the package pydicom reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing, moment, optional
from formats.scp import LEADS

DEFLATED = "1.2.840.10008.1.2.1.99"


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the longest multiplex group that is no derived beat, and not who the patient is.

    Raises
    ------
    pqrst.FormatError
        A damaged file, one without a waveform, or a deflated one.
    """
    pydicom = optional("pydicom", path, "DICOM")
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DEFLATED:
            raise pqrst.FormatError(f"{path}: is deflated, which is not read; convert it to Explicit VR Little Endian")
        content = pydicom.dcmread(path)
        groups = list(content.get("WaveformSequence", ()))
        if not groups:
            raise pqrst.FormatError(f"{path}: has no waveform: its modality is {content.get('Modality', 'not given')}")
        kept = [k for k, group in enumerate(groups) if group.get("WaveformOriginality", "ORIGINAL") == "ORIGINAL"]
        chosen = max(kept or range(len(groups)), key=lambda k: (int(groups[k].NumberOfWaveformSamples), -k))
        group = groups[chosen]
        codes = pydicom.waveforms.multiplex_array(content, chosen)
        rate = float(group.SamplingFrequency)
        channels = group.ChannelDefinitionSequence
        signals = [_signal(channel, codes[:, k], group, rate) for k, channel in enumerate(channels)]
    except (pqrst.FormatError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many types of errors
        raise pqrst.FormatError(f"{path}: not a DICOM waveform that can be read: {error}") from error
    others = [
        str(each.get("MultiplexGroupLabel", "one without a name")) for k, each in enumerate(groups) if k != chosen
    ]
    told = (f"{path}: other multiplex groups are left out: {', '.join(others)}",) if others else ()
    return Tracing(signals, warnings=told, start_time=moment(str(content.get("AcquisitionDateTime", "") or "")))


def _signal(channel: Any, codes: NDArray[Any], group: Any, rate: float) -> Signal:
    """Return one channel in its own unit: code * sensitivity * correction + baseline."""
    unit = None
    values = codes.astype(np.float64)
    if padding := group.get("WaveformPaddingValue"):
        values[codes == np.frombuffer(padding[: codes.itemsize], codes.dtype)[0]] = np.nan
    if "ChannelSensitivity" in channel:
        unit = str(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
        values *= float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
        values += float(channel.get("ChannelBaseline", 0) or 0)
    return Signal(_name(channel), values, rate, unit)


def _name(channel: Any) -> str:
    """Return the name of a lead: the meaning of its code, else the code's own, of SCP-ECG or MDC, else the label."""
    source = channel.ChannelSourceSequence[0]
    meaning = str(source.get("CodeMeaning", "")).strip()
    number = re.fullmatch(r"(?:5\.6\.3-9-|2:)(\d+)", str(source.get("CodeValue", "")))
    if number and (name := LEADS.get(int(number[1]))):
        return name
    return meaning.removeprefix("Lead ").strip() or str(channel.get("ChannelLabel", "")).strip()

"""Small recordings and tables in the layouts in which their owners publish them, and what comes of them."""

import csv

import numpy as np
from conftest import write_record

import data
import preprocess
import recipe

TWELVE = recipe.TWELVE_LEADS
TWO = ["--data.folds", "2", "--data.train", "0", "--data.validation", "1"]


def twelve(rng, n, leads=TWELVE):
    """(L, n) mV whose limb leads agree with one another, with a beat a second."""
    t = np.arange(n)
    one, two = (0.02 * rng.standard_normal(n) + a * (t % 100 == 50) for a in (0.7, 1.1))
    known = {"I": one, "II": two, "III": two - one, "AVR": -(one + two) / 2, "AVL": one - two / 2, "AVF": two - one / 2}
    return np.stack([known.get(lead.upper(), 0.9 * two + 0.01 * rng.standard_normal(n)) for lead in leads])


def run(name, raw, folder, *words):
    preprocess.main(["--dataset", name, "--data.raw", str(raw), "--data.dir", str(folder), *words])
    return data.Dataset(folder)


def labels_of(dataset):
    """Record -> the classes of its first row."""
    names = np.array(dataset.classes)
    return {r.decode(): tuple(names[y > 0]) for r, y in zip(dataset.record[::-1], dataset.labels[::-1], strict=True)}


def failures(folder):
    with (folder / "failures.csv").open(newline="") as file:
        return {row["record"]: f"{row['stage']}: {row['reason']}" for row in csv.DictReader(file)}


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_mat(folder, name, signal, gain="1000/mV", comments=(), fs=500, extension="", leads=TWELVE):
    """A recording as the challenges publish it: int16 in MATLAB 4 behind 24 bytes, and its header."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    units = np.round(signal * 1000).astype(np.int16)
    savemat(folder / f"{name}.mat", {"val": units}, format="4")
    lines = [f"{name}{extension} {len(units)} {fs} {units.shape[1]}"]
    lines += [
        f"{name}.mat 16+24 {gain} 16 0 {x[0]} {int(x.sum(dtype=np.int64)) & 0xFFFF} 0 {lead}"
        for lead, x in zip(leads, units, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([*lines, *comments]) + "\n")


def write_ptbxl(raw, rng):
    """Five recordings at both rates; the fifth is named and absent."""
    rows = [["ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]]
    statements = [
        "{'NORM': 100.0, 'SR': 0.0}",
        "{'IMI': 15.0, 'ASMI': 0.0, 'LVH': 50.0, 'STACH': 0.0}",
        "{'AFIB': 0.0, 'ABQRS': 0.0}",
        "{'CLBBB': 100.0, 'NDT': 0.0}",
        "{'NORM': 80.0}",
    ]
    for number, codes in enumerate(statements, 1):
        places = [f"records{rate}/00000/{number:05d}_{kind}" for rate, kind in ((100, "lr"), (500, "hr"))]
        rows.append([number, f"{100 + number}.0", 'text, with "quotes"\nand lines', codes, number, *places])
        for rate, place in zip((100, 500), places, strict=True):
            if number < 5:
                (raw / place).parent.mkdir(parents=True, exist_ok=True)
                leads = [lead.upper() for lead in TWELVE]
                write_record((raw / place).parent, place.split("/")[-1], twelve(rng, 10 * rate, leads), rate, leads)
    write_table(raw / "ptbxl_database.csv", rows)
    return raw


def write_ptbxl_of_all_targets(raw, rng, n=40):
    """So many recordings at 100 Hz, four in each fold; every fold has rows of several classes of each target."""
    rows = [["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]]
    statements = [("NORM", "SR", "ABQRS"), ("IMI", "AFIB", "NDT"), ("CLBBB", "STACH", "ABQRS"), ("LVH", "SR", "NDT")]
    leads = [lead.upper() for lead in TWELVE]
    for number in range(n):
        place = f"records100/00000/{number + 1:05d}_lr"
        (raw / place).parent.mkdir(parents=True, exist_ok=True)
        write_record((raw / place).parent, f"{number + 1:05d}_lr", twelve(rng, 1000, leads), 100, leads)
        codes = str(dict.fromkeys(statements[number // 10 % 4], 100.0))
        rows.append([number + 1, number + 1, codes, number % 10 + 1, place, place])
    write_table(raw / "ptbxl_database.csv", rows)
    return raw


def write_code(raw, generator, n=40):
    """So many exams, each of another patient, as CODE-15% in raw/code15, and again as CODE-test in raw/code-test."""
    import h5py

    import sources

    classes = (*sources.CODE_CLASSES, "normal_ecg")
    flags = [[str(k == number % len(classes)) for k in range(len(classes))] for number in range(n)]
    tracings = np.stack([twelve(generator, 4096).T for _ in range(n)]).astype(np.float32)  # (n, 4096, 12)
    (raw / "code15").mkdir(parents=True)
    with h5py.File(raw / "code15/exams_part0.hdf5", "w") as file:
        file["exam_id"] = np.arange(1, n + 1)
        file["tracings"] = tracings
    exams = [[number + 1, number + 1, "exams_part0.hdf5", *flags[number]] for number in range(n)]
    write_table(raw / "code15/exams.csv", [["exam_id", "patient_id", "trace_file", *classes], *exams])
    gold = [[int(flag == "True") for flag in each[:-1]] for each in flags]
    write_table(raw / "code-test/annotations/gold_standard.csv", [sources.CODE_CLASSES, *gold])
    with h5py.File(raw / "code-test/ecg_tracings.hdf5", "w") as file:
        file["tracings"] = tracings


def write_cinc2021(raw, generator, n=40):
    """So many recordings of the challenge, with two scored classes, and its table of weights (the unit matrix)."""
    import sources

    classes = sources.SOURCES["cinc2021"].targets["scored"].classes
    for number in range(n):
        codes = ("426783006", "164889003", "426783006,270492004", "427084000")[number % 4]  # NSR, AF, IAVB, STach
        write_mat(raw / "georgia/g1", f"E{number:05d}", twelve(generator, 5000), comments=[f"# Dx: {codes}"])
    weights = [[name, *(float(name == other) for other in classes)] for name in classes]
    write_table(raw / "weights_abbreviations.csv", [["", *classes], *weights])

"""Every command of the pages in docs/ runs, on small recordings that stand where a page has the real ones.

Blocks marked `sh` are run as they are, one after the other. Blocks marked `console` are what cannot be run here as it
is: a download, a second machine; and in troubleshooting.md the commands that fail, with their messages.
"""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, write_record
from layouts import write_cinc2021, write_code, write_ptbxl_of_all_targets, write_table
from projects import link_project

import simulate

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
STOPPED = """
import signal, train
print_epoch = train.print_epoch
def stop(*values):
    print_epoch(*values)
    signal.raise_signal(signal.SIGTERM)
train.print_epoch = stop
train.main(["--run_dir", "runs/stopped"])
"""


def blocks(page, language):
    """Return the fenced blocks of a page in this language."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Return a function that runs lines of bash in a folder with the project; HOME is beside it, settings are small."""
    folder = tmp_path / "pqrst"
    folder.mkdir()
    link_project(folder)
    (tmp_path / "data").mkdir()
    for name in [name for name in os.environ if name.startswith(("ECG_", "GIT_", "SLURM_"))]:
        monkeypatch.delenv(name)
    small = {"EPOCHS": "2", "BATCH_SIZE": "16", "THREADS": "1"}
    names = {f"ECG_TRAINING__{name}": value for name, value in small.items()}
    names |= {
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    names |= {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    names |= {f"GIT_{who}_{what}": "docs@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for name, value in names.items():
        monkeypatch.setenv(name, value)

    def run(lines, status=0):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", lines], cwd=folder, capture_output=True, text=True)
        assert done.returncode == status, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done

    run.folder = folder
    return run


def simulated(folder, number, name, leads, fs, duration_s=10.0, every=1):
    """Write a simulated record with some of the twelve leads, by new names: {new: old}; of its samples each n-th."""
    generator = np.random.default_rng(number)
    patient = simulate.simulate_patient(generator)
    signal, r_peaks, symbols = simulate.simulate_record(generator, patient, (), duration_s, fs)
    rows = [simulate.TWELVE_LEADS.index(lead) for lead in leads.values()]
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, name, signal[rows, ::every], fs / every, list(leads), (r_peaks // every, symbols))


def write_beats(folder, names, leads, fs, monkeypatch):
    """Write records of half a minute with normal and ventricular beats."""
    with monkeypatch.context() as patch:
        patch.setattr(simulate, "PVC_FRACTION", 1.0)
        for name in names:
            simulated(folder, int(name), name, leads, fs, 30.0)


def write_demo(shell):
    simulate.write_demo(shell.folder / "demo", n_patients=30)


MITDB = [
    *range(100, 110),
    *range(111, 120),
    *range(121, 125),
    200,
    201,
    202,
    203,
    205,
    *range(207, 211),
    *range(212, 216),
]
MITDB += [217, *range(219, 224), 228, *range(230, 235)]


def write_mitdb(shell, monkeypatch, numbers=MITDB):
    write_beats(shell.folder.parent / "data/mitdb", map(str, numbers), {"MLII": "II", "V1": "V1"}, 360.0, monkeypatch)


def write_ptbxl(raw):
    """Write forty recordings at both rates, four in each fold, with statements of all superclasses."""
    rows = [["ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]]
    for number in range(40):
        codes = [("NORM", "SR"), ("IMI", "SR"), ("NDT", "AFIB"), ("CLBBB", "SR"), ("LVH", "STACH")][
            (number + number // 10) % 5
        ]
        places = [f"records{rate}/00000/{number + 1:05d}_{kind}" for rate, kind in ((100, "lr"), (500, "hr"))]
        rows.append([number + 1, number + 1, "", str(dict.fromkeys(codes, 100.0)), number % 10 + 1, *places])
        leads = {lead.upper(): lead for lead in simulate.TWELVE_LEADS}
        for every, place in zip((5, 1), places):
            simulated((raw / place).parent, number, Path(place).name, leads, 500.0, every=every)
    write_table(raw / "ptbxl_database.csv", rows)


def write_clinic(folder):
    """Write thirty simulated patients in folders by year, with their table; one more recording has no label yet."""
    simulate.write_demo(folder, n_patients=30)
    with (folder / "records.csv").open(newline="") as file:
        recordings = list(csv.DictReader(file))
    rows = [["record", "label", "patient"]]
    for number, row in enumerate(recordings):
        year = f"{2023 + number % 2}"
        (folder / year).mkdir(exist_ok=True)
        for suffix in (".hea", ".dat"):
            (folder / f"{row['record']}{suffix}").rename(folder / year / f"{row['record']}{suffix}")
        found = [name for name in simulate.CLASSES if row[name] == "1"] or ["normal"]
        rows += [[f"{year}/{row['record']}.hea", label, row["patient"]] for label in found]
    for path in [*folder.glob("*.atr"), folder / "records.csv"]:
        path.unlink()
    write_table(folder / "unified_label_mapping.csv", rows)
    simulated(folder, 99, "new", {lead: lead for lead in simulate.TWELVE_LEADS}, 500.0)


def test_every_page_with_commands_has_a_test():
    tested = Path(__file__).read_text()
    with_commands = [page.stem for page in PAGES if blocks(page.stem, "sh")]
    assert len(with_commands) > 5
    assert [page for page in with_commands if f'blocks("{page}"' not in tested] == []


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, part = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if part:
            titles = [line.lstrip("# ").strip() for line in target.read_text().splitlines() if line.startswith("#")]
            assert part in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], link


@pytest.mark.slow
def test_own_data(shell):
    write_clinic(shell.folder.parent / "data/clinic")
    said = [shell(block) for block in blocks("own-data", "sh")]
    assert "WFDB, 500 Hz, 12 leads" in said[1].stderr
    assert "has no row for new.hea" in (shell.folder / "prepared/clinic/failures.csv").read_text()
    for name in ("prepared/clinic/samples.png", "runs/clinic/report/report.md", "new.png"):
        assert (shell.folder / name).exists()
    assert len((shell.folder / "findings.csv").read_text().splitlines()) > 100


@pytest.mark.long  # the commands of other pages, on other recordings
def test_mit_bih(shell, monkeypatch):
    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "1")
    monkeypatch.setenv("ECG_TRAINING__BATCH_SIZE", "64")
    write_mitdb(shell, monkeypatch)
    write_beats(shell.folder.parent / "data/svdb", ["800", "801"], {"ECG1": "II", "ECG2": "V1"}, 128.0, monkeypatch)
    said = [shell(block) for block in blocks("mit-bih", "sh")]
    assert any("LEAK" in each.stdout for each in said)
    assert (shell.folder / "runs/beats-ds1/report-svdb-detected/report.md").exists()


@pytest.mark.long  # the commands of other pages, on other recordings
def test_ptb_xl(shell, monkeypatch):
    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "1")
    write_ptbxl(shell.folder / "raw/ptbxl")
    for block in blocks("ptb-xl", "sh"):
        shell(block)
    assert (shell.folder / "00001.pdf").exists()


@pytest.mark.long  # twenty trainings
@pytest.mark.timeout(1800)
def test_experiments(shell, monkeypatch, rng):
    """By small networks and one epoch, on simulated recordings that stand where the page has the public ones."""
    data = shell.folder.parent / "data"
    write_ptbxl_of_all_targets(data / "ptb-xl", rng)
    write_code(data, rng)
    write_cinc2021(data / "cinc2021", rng)
    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "1")
    monkeypatch.setenv("ECG_TRAINING__BATCH_SIZE", "8")
    small = {"name=resnet1d": {"base_channels": 8, "kernel": 7}, "evaluation.challenge": {"base_channels": 16}}
    said = []
    for block in blocks("experiments", "sh"):
        arguments = next((values for word, values in small.items() if word in block), {})
        monkeypatch.setenv("ECG_MODEL__ARGUMENTS", json.dumps(arguments))
        with monkeypatch.context() as patch:
            if "ptbxl" in block:
                patch.setenv("ECG_MODEL__NAME", "cnn1d")
            said.append(shell(block).stdout)
    with (shell.folder / "runs/ptbxl/grid.csv").open(newline="") as file:
        tasks = [(row["data.target"], row["state"]) for row in csv.DictReader(file)]
    names = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
    assert tasks == [(name, "finished") for name in names]
    assert (shell.folder / "runs/code15/name=resnet1d/report-codetest/report.md").exists()
    assert any("Challenge score (CinC 2020/2021" in text for text in said)
    with (shell.folder / "runs/cinc2021/grid.csv").open(newline="") as file:
        assert "CinC 2020/2021, by weights" in next(csv.reader(file))


@pytest.mark.parametrize("page", ["mit-bih", "ptb-xl"])
def test_downloads_of_a_page_are_those_of_its_dataset(page, shell, monkeypatch):
    """The download itself is left out: it is asked for the right dataset and folder."""
    import download
    import preprocess

    asked = []
    monkeypatch.setattr(download, "download", lambda name, folder: asked.append((name, str(folder))))
    monkeypatch.setattr(preprocess, "prepare", lambda *_: shell.folder)
    for block in blocks(page, "console"):
        words = os.path.expandvars(block.replace("~", "$HOME")).split()
        assert words[:3] == ["$", "python", "preprocess.py"]
        preprocess.main(words[3:])
    where = {"mit-bih": ("mitdb", f"{shell.folder.parent}/data/mitdb"), "ptb-xl": ("ptbxl", "raw/ptbxl")}
    assert asked == [where[page]]


@pytest.mark.slow
def test_cluster(shell):
    write_demo(shell)
    shell(f"python -c '{STOPPED}' || test $? = 143")
    shutil.copytree(shell.folder / "runs/stopped", shell.folder / "runs/slurm")
    for block in blocks("cluster", "sh"):
        shell(block)
    assert len((shell.folder / "runs/stopped/metrics.csv").read_text().splitlines()) == 3


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.slow
def test_a_command_of_two_machines_joins_them(shell):
    """Both are this one, with a process each."""
    write_demo(shell)
    (command,) = [
        line[2:] for block in blocks("cluster", "console") for line in block.splitlines() if "--nnodes" in line
    ]
    for old, new in (("node1:29500", f"127.0.0.1:{free_port()}"), ("--nproc_per_node 4", "--nproc_per_node 1")):
        assert old in command
        command = command.replace(old, new)
    said = shell(f"({command}) & {command}; wait $!").stdout
    assert said.count("2 processes") == 1
    assert (shell.folder / "runs/machines/report/report.md").exists()


@pytest.mark.slow
def test_a_job_of_slurm_goes_on_where_it_was_cut_off(shell):
    """srun is a stand-in that starts the command twice, as for two machines; both are this one."""
    write_demo(shell)
    shell(f"python -c '{STOPPED}' || test $? = 143")
    (shell.folder / "runs/stopped").rename(shell.folder / "runs/slurm")
    (job,) = [block for block in blocks("cluster", "bash") if "#SBATCH" in block]
    for old, new in (("29500", free_port()), ("processes=4", "processes=1")):
        assert old in job
        job = job.replace(old, new)
    tools = {"scontrol": "echo 127.0.0.1", "srun": '"$@" & "$@"; wait $!'}
    (shell.folder / "bin").mkdir()
    for name, lines in tools.items():
        (shell.folder / "bin" / name).write_text(f"#!/bin/bash -e\n{lines}\n")
        (shell.folder / "bin" / name).chmod(0o755)
    (shell.folder / "job.sh").write_text(job)
    cluster = "SLURM_NNODES=2 SLURM_JOB_ID=7 SLURM_JOB_NODELIST=node[1-2]"
    said = shell(f'{cluster} PATH="$PWD/bin:$PATH" bash job.sh').stdout
    assert "2 processes" in said and "epoch 2/2" in said and "epoch 1/2" not in said


@pytest.mark.long  # test_dvc.py runs the stages each time
def test_dvc_page(shell):
    for path in [path for path in shell.folder.iterdir() if path.is_symlink()]:  # DVC watches files, not links
        real = path.resolve()
        path.unlink()
        shutil.copytree(real, path) if real.is_dir() else shutil.copy(real, path)
    shell("git init --quiet")
    for block in blocks("dvc", "sh"):
        shell(block.replace("simulate.py --out demo", "simulate.py --out demo --patients 30"))


@pytest.mark.slow
def test_errors_are_as_they_are_described_and_the_ways_out_work(shell, monkeypatch):
    write_demo(shell)
    write_mitdb(shell, monkeypatch, range(100, 107))
    t = np.arange(3000) / 250
    columns = np.column_stack([np.exp(-((t % 0.8 - 0.4) ** 2) / 2e-4)] * 2)
    np.savetxt(shell.folder / "strip.csv", columns, delimiter=",", header="II,V1", comments="", fmt="%.4f")
    shell("python train.py")
    text = (REPOSITORY / "docs/troubleshooting.md").read_text()
    fenced = re.findall(r"^```(sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(fenced) == len(blocks("troubleshooting", "sh")) + len(blocks("troubleshooting", "console"))
    failing = 0
    for language, block in fenced:
        if language == "sh":
            shell(block)
            continue
        command, *message = block.splitlines()
        if command == "$ pip install -e .":
            continue
        done = shell(command[2:], status=2)
        assert done.stderr.replace(str(shell.folder), "/home/me/pqrst").splitlines()[-1] == message[0]
        failing += 1
    assert failing == 8


@pytest.mark.slow
def test_export(shell):
    write_demo(shell)
    shell("python train.py")
    for block in blocks("export-and-serving", "sh"):
        if "curl" not in block:
            shell(block)
    for name in ("best.onnx", "best.pt2", "best.int8.onnx"):
        assert (shell.folder / "runs/demo" / name).exists()


@pytest.mark.long  # compiles a network and csrc/
def test_a_recording_is_predicted_without_python(shell, monkeypatch):
    write_demo(shell)
    monkeypatch.setenv("VENV", sys.prefix)
    shell("python train.py && python export.py runs/demo --format torch")
    (block,) = [block for block in blocks("export-and-serving", "console") if "make native" in block]
    compile_network, compile_program, command = (line.removeprefix("$ ") for line in block.splitlines())
    shell(f"{compile_network} && {compile_program}")
    program, network, record = command.split()
    simulated(shell.folder, 5, "long", {lead: lead for lead in simulate.TWELVE_LEADS}, 500.0, 27.0)  # three windows
    for path in (record, "long.hea"):
        said = [line.split() for line in shell(f"{program} {network} {path}").stdout.splitlines()[:-1]]
        findings = json.loads(shell(f"python infer.py {path} --run runs/demo --format json").stdout)["findings"]
        assert [line[0] for line in said] == [finding["class"] for finding in findings]
        assert ["found" in line for line in said] == [finding["present"] for finding in findings]
        scores = [finding["probability"] for finding in findings]
        np.testing.assert_allclose([float(line[1]) for line in said], scores, atol=2e-6)
    assert "none.hea" in shell(f"{program} {network} none.hea", status=2).stderr
    shell("python export.py pretrained/beats.pt --format torch --out beats.pt2")
    assert "wants numbers beside the signal" in shell("python examples/native.py beats.pt2 x.pt2", status=1).stderr


@contextmanager
def serving(shell, command, health):
    """Run a server by a command of a page on a free port, which is yielded once it answers."""
    port = free_port()
    with subprocess.Popen(["bash", "-c", f"exec {command.format(port=port)}"], cwd=shell.folder) as server:
        try:
            shell(f"curl -sf --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:{port}{health}")
            yield port
        finally:
            server.terminate()


@pytest.mark.slow
def test_service(shell):
    write_demo(shell)
    shell("python train.py")
    (command,) = [block[2:].strip() for block in blocks("export-and-serving", "console") if "--port 8000" in block]
    with serving(shell, command.replace("8000", "{port}"), "/health") as port:
        said = [
            shell(block.replace("8000", port)).stdout for block in blocks("export-and-serving", "sh") if "curl" in block
        ]
        shell("timeout 200 bash -c 'until test -e runs/served/report; do sleep 1; done'")
    assert '"N"' in said[0] and "served" in said[1]
    assert (shell.folder / "demo.onnx").stat().st_size > 10_000


@pytest.mark.slow
def test_explorer_starts(shell):
    (command,) = [block[2:].strip() for block in blocks("export-and-serving", "console") if "streamlit" in block]
    options = " --server.headless true --server.port {port} --browser.gatherUsageStats false"
    with serving(shell, command + options, "/_stcore/health"):
        pass


@pytest.mark.slow
def test_a_service_for_others_asks_for_the_secret(shell):
    (command,) = [block[2:].strip() for block in blocks("export-and-serving", "console") if "TOKEN" in block]
    command = f"env {command} --port {{port}}"
    with serving(shell, command, "/health -H 'Authorization: Bearer choose-a-long-secret'") as port:
        assert "401" in shell(f"curl -s -i http://127.0.0.1:{port}/models").stdout

"""The stages of dvc.yaml, on a few simulated patients in a repository of its own, with a folder as the remote."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

DVC = [sys.executable, "-m", "dvc"]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
LOADED = """
import runpy, sys
from pathlib import Path
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
files = {Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
here = Path(sys.argv[0]).resolve().parent
print("loaded:", *(file.relative_to(here) for file in files if file.is_relative_to(here) and file.exists()))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a function that runs a command in a git repository with the scripts and forty simulated recordings."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    shutil.copytree(REPOSITORY, folder, ignore=unneeded)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("epochs: 25", "epochs: 1\n  batch_size: 8\n  threads: 1"))
    names = {name: value for name, value in os.environ.items() if not name.startswith(("ECG_", "GIT_"))}
    names |= {"DVC_NO_ANALYTICS": "1", "DVC_GLOBAL_CONFIG_DIR": str(folder.parent), "OMP_NUM_THREADS": "1"}
    names["DVC_SITE_CACHE_DIR"] = str(folder.parent / "site")
    names["PATH"] = f"{Path(sys.executable).parent}:{names['PATH']}"

    def run(*command):
        done = subprocess.run(command, cwd=folder, env=names, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.folder = folder
    run("git", "init", "--quiet")
    run(*DVC, "init", "--quiet")
    run(*DVC, "config", "core.analytics", "false")
    run("python", "simulate.py", "--out", "demo", "--patients", "20")
    run(*DVC, "add", "demo")
    return run


def unneeded(folder, names):
    """Name what a stage has no use for: in the repository all but its code and settings, and caches anywhere."""
    wanted = {"csrc", "formats", "networks", "configs", "codes.csv", "dvc.yaml", "params.yaml", ".dvcignore"}
    if Path(folder) == REPOSITORY:
        return [name for name in names if name not in wanted and not name.endswith((".py", ".so"))]
    return ["__pycache__"]


def ran(text):
    """Return the stages that DVC has run, in their order."""
    return re.findall(r"Running stage '(\w+)'", text)


def edit(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_dependencies_of_the_stages_exist():
    files = {dep for stage in STAGES.values() for dep in stage["deps"] if "$" not in dep}
    assert [name for name in sorted(files) if not (REPOSITORY / name).exists()] == []


@pytest.mark.slow
def test_stages_run_when_what_they_depend_on_changes_and_not_otherwise(project):
    assert ran(project(*DVC, "repro")) == ["preprocess", "train", "evaluate"]
    assert ran(project(*DVC, "repro")) == []
    edit(project.folder, "params.yaml", "batch_size: 8", "batch_size: 8\n  learning_rate: 0.001")
    assert ran(project(*DVC, "repro")) == ["train", "evaluate"]
    edit(project.folder, "plots.py", "Each function draws", "Every function draws")
    assert ran(project(*DVC, "repro")) == ["evaluate"]
    # made again, to the same bytes but for the log, which does not count
    edit(project.folder, "index.py", '"""', '"""\n')
    assert ran(project(*DVC, "repro")) == ["preprocess"]
    assert "macro_f1" in project(*DVC, "metrics", "show", "--json")
    assert "train_loss" in project(*DVC, "plots", "show", "--json")


@pytest.mark.slow
def test_prepared_rows_and_runs_come_back_from_a_remote(project):
    project(*DVC, "repro")
    prepared, run = project.folder / "prepared/demo", project.folder / "runs/demo"
    before = hashes(prepared), hashes(run / "report"), (run / "best.pt").read_bytes(), hashes(project.folder / "demo")
    project(*DVC, "remote", "add", "--default", "ours", str(project.folder.parent / "remote"))
    project(*DVC, "push")
    for folder in ("demo", "prepared", "runs", ".dvc/cache"):
        shutil.rmtree(project.folder / folder)
    project(*DVC, "pull")
    after = hashes(prepared), hashes(run / "report"), (run / "best.pt").read_bytes(), hashes(project.folder / "demo")
    assert before[0].pop("prepare.log.json")
    assert after == before
    assert ran(project(*DVC, "repro")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "also"), [("preprocess", ()), ("train", ("evaluate",))])  # train.py also evaluates
def test_a_stage_depends_on_every_module_that_it_loads(project, stage, also):
    project(*DVC, "repro")
    words = STAGES[stage]["cmd"].replace("${data.name}", "demo").split()[1:]
    text = project("python", "-c", f"import sys; sys.argv = {words!r}\n{LOADED}")
    loaded = re.search("^loaded: (.*)", text, re.MULTILINE)[1].split()
    known = {dep for name in (stage, *also) for dep in STAGES[name]["deps"]} | {"csrc"}
    assert f"{stage}.py" in loaded
    missing = [file for file in loaded if file not in known and file.split("/")[0] not in known]
    assert [file for file in missing if not file.startswith("pqrst.")] == []

"""Tests of the service's routes, in this process; what needs a real server is in test_api_hostile.py."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, write_record

pytest.importorskip("fastapi", reason="comes with the apps extra")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `httpx` with")  # starlette's newest client asks for its successor
    from starlette.testclient import TestClient

import infer
import pqrst
from apps import answers, api, guard, jobs, scoring, uploads
from config import Settings
from script import Stop

TOLERANCE = 1e-5  # a row's scores, whatever else is in its batch: models.py


@pytest.fixture(scope="module")
def roots(demo_run, prepared_beats, beat_run, tmp_path_factory) -> Path:
    """A folder with runs/ and prepared/, as the service finds them."""
    folder = tmp_path_factory.mktemp("service")
    shutil.copytree(beat_run, folder / "runs" / "beats")
    shutil.copytree(demo_run, folder / "runs" / "demo")
    shutil.copytree(demo_run.parent / "prepared", folder / "prepared" / "demo")
    shutil.copytree(prepared_beats[prepared_beats.index("--data.dir") + 1], folder / "prepared" / "mitdb")
    os.utime(folder / "runs" / "demo" / "best.pt")  # the newest
    return folder


def service_of(roots, **more):
    return api.Service(roots / "runs", roots / "prepared", roots / "state", **more)


@pytest.fixture(scope="module")
def client(roots):
    with TestClient(api.application(service_of(roots)), raise_server_exceptions=False) as client:
        yield client


def files_of(header):
    return [("files", (path.name, path.read_bytes())) for path in (header, header.with_suffix(".dat"))]


def problem_of(answer, status):
    """The detail of an answer that is a problem as RFC 9457 has it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    tree = answer.json()
    assert list(tree) == ["type", "title", "status", "detail", "instance"]
    assert (tree["status"], tree["type"]) == (status, "about:blank")
    assert tree["detail"] and "\n" not in tree["detail"] and "Traceback" not in tree["detail"]
    assert "/tmp" not in tree["detail"]
    return tree["detail"]


def assert_same(told, expected):
    """The answer of the service is that of infer.py, but for the folder of record and run."""
    for tree in (told, expected):
        for row in tree.get("findings", tree.get("beats")):
            row["probability"] = pytest.approx(row["probability"], abs=TOLERANCE, rel=0)
    expected["record"] = Path(expected["record"]).name
    expected["model"]["run"] = Path(expected["model"]["run"]).name
    assert told == expected


# ------------------------------------------------------------------------------------------------ predictions


def test_a_record_is_predicted_as_infer_does(client, roots, demo_folder):
    for header in sorted(demo_folder.glob("*.hea"))[:5]:
        told = client.post("/predict", files=files_of(header), data={"run": "demo"})
        assert told.status_code == 200, told.text
        assert told.headers["x-notice"] == guard.NOTICE
        assert_same(told.json(), json.loads(infer.predict(header, run=roots / "runs" / "demo").to_json()))


def test_beats_are_predicted_as_infer_does(client, roots, mitdb_like):
    for name in ("101", "102", "114"):
        header = mitdb_like / f"{name}.hea"
        told = client.post("/predict", files=files_of(header), data={"run": "beats"}).json()
        assert_same(told, json.loads(infer.predict(header, run=roots / "runs" / "beats").to_json()))


def test_the_bundled_model_answers_by_its_name(client, mitdb_like):
    header = mitdb_like / "119.hea"
    told = client.post("/predict", files=files_of(header), data={"run": "bundled"}).json()
    expected = json.loads(infer.predict(header, run=infer.PRETRAINED).to_json())
    expected["model"]["run"] = "bundled"
    assert_same(told, expected)


def test_leads_are_mapped_as_infer_does(client, roots, mitdb_like):
    header, mapping = mitdb_like / "102.hea", "MLII=V5,V1=zeros"
    told = client.post("/predict", files=files_of(header), data={"run": "beats", "leads": mapping}).json()
    assert_same(told, json.loads(infer.predict(header, run=roots / "runs" / "beats", leads=mapping).to_json()))


def test_no_run_named_is_the_newest_that_fits(client, demo_folder, mitdb_like):
    told = client.post("/predict", files=files_of(next(demo_folder.glob("*.hea")))).json()
    assert told["model"]["run"] == "demo"
    told = client.post("/predict", files=files_of(mitdb_like / "101.hea")).json()
    assert told["model"]["run"] == "beats"


def test_suffixes_may_be_in_capitals(client, demo_folder, rng):
    table = "II,V1\n" + "\n".join(f"{a:.3f},{b:.3f}" for a, b in rng.normal(0, 0.3, (5000, 2)))
    told = client.post("/predict", files=[("files", ("ECG.CSV", table.encode()))], data={"fs": "250", "run": "bundled"})
    assert told.status_code == 200, told.text
    (_, header), data = files_of(next(demo_folder.glob("*.hea")))
    told = client.post("/predict", files=[("files", (header[0].replace(".hea", ".HEA"), header[1])), data])
    assert told.status_code == 200, told.text


def test_a_csv_needs_its_rate(client, rng):
    table = "II,V1\n" + "\n".join(f"{a:.3f},{b:.3f}" for a, b in rng.normal(0, 0.3, (5000, 2)))
    file = [("files", ("ecg.csv", table.encode()))]
    assert "ecg.csv: does not tell its sampling rate" in problem_of(client.post("/predict", files=file), 422)
    told = client.post("/predict", files=file, data={"fs": "250", "run": "bundled"})
    assert told.status_code == 200, told.text
    assert (told.json()["record"], told.json()["fs"], told.json()["duration_s"]) == ("ecg.csv", 250, 20)


def test_concurrent_requests_are_scored_together_and_answered_apart(client, roots, demo_folder):
    headers = sorted(demo_folder.glob("*.hea"))[:24]
    run = roots / "runs" / "demo"
    expected = [json.loads(infer.predict(header, run=run).to_json()) for header in headers]
    before = batches(client)
    with ThreadPoolExecutor(24) as pool:
        told = [*pool.map(lambda h: client.post("/predict", files=files_of(h), data={"run": "demo"}).json(), headers)]
    for one, other in zip(told, expected):
        assert_same(one, other)
    after = batches(client)
    assert after["ecg_batch_rows_sum"] - before["ecg_batch_rows_sum"] == 24


def batches(client):
    lines = [line.split(" ") for line in client.get("/metrics").text.splitlines() if line.startswith("ecg_batch_rows_")]
    return {name: float(value) for name, value in lines}


def test_rows_that_wait_together_are_one_call_of_the_network(roots, demo_folder, monkeypatch):
    import asyncio

    import bundle
    import readers

    trained = bundle.load(roots / "runs" / "demo" / "best.pt")
    fed = [infer.feed(readers.read(path), trained) for path in sorted(demo_folder.glob("*.hea"))[:6]]
    alone = [bundle.score(trained, infer.batches_of(f.prepared, f.context, 6, 512))[1] for f in fed]
    sizes, at_work, go_on = [], threading.Event(), threading.Event()
    score = bundle.score

    def slow(trained, some):
        at_work.set()
        go_on.wait(10)
        return score(trained, some)

    monkeypatch.setattr(bundle, "score", slow)
    scorer = scoring.Scorer(sizes.append)

    async def all_of_them():
        first = asyncio.ensure_future(scorer.logits(trained, fed[0]))
        await asyncio.to_thread(at_work.wait, 10)  # the network is busy with it while the others come
        others = [asyncio.ensure_future(scorer.logits(trained, each)) for each in fed[1:]]
        while scorer.depth < 5:
            await asyncio.sleep(0.01)
        go_on.set()
        return [await each for each in (first, *others)]

    together = asyncio.run(all_of_them())
    scorer.close()
    assert sizes == [1, 5]
    for one, other in zip(together, alone):
        np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0)


def test_a_network_that_fails_is_a_problem_and_not_the_end(roots, demo_folder, monkeypatch):
    import bundle

    with TestClient(api.application(service_of(roots)), raise_server_exceptions=False) as client:
        files = files_of(next(demo_folder.glob("*.hea")))
        with monkeypatch.context() as patch:
            patch.setattr(bundle, "score", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory at 0x7f")))
            detail = problem_of(client.post("/predict", files=files, data={"run": "demo"}), 500)
        assert detail == "the service has failed; its log says how"
        assert client.post("/predict", files=files, data={"run": "demo"}).status_code == 200


def test_a_changed_checkpoint_is_read_again(roots, mitdb_like, tmp_path, demo_folder):
    shutil.copytree(roots / "runs" / "demo", tmp_path / "runs" / "one")
    kept = scoring.Models(tmp_path / "runs")
    first = kept.choose("one", None)[1]
    assert kept.choose("one", None)[1] is first
    path = tmp_path / "runs" / "one" / "best.pt"
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert kept.choose("one", None)[1] is not first
    path.write_bytes(b"no checkpoint")
    for _ in range(2):
        with pytest.raises(Stop, match="^one/best.pt: not a checkpoint"):
            kept.choose("one", None)


def test_no_more_networks_are_kept_than_asked_for(roots, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "MAX_MODELS", 2)
    for name in "abc":
        shutil.copytree(roots / "runs" / "demo", tmp_path / name)
    kept = scoring.Models(tmp_path)
    first = kept.choose("a", None)[1]
    for name in "bca":
        kept.choose(name, None)
    assert kept.choose("a", None)[1] is not first


BAD_NAMES = [
    "../100.hea",
    "/etc/passwd.hea",
    "a/b.hea",
    "a\\b.hea",
    ".hea",
    "..",
    "100\u2215.hea",
    "C:100.hea",
    "a b.hea",
    "x" * 101 + ".hea",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_file_names_are_bare(client, name):
    detail = problem_of(client.post("/predict", files=[("files", (name, b"100 1 250 10"))]), 422)
    assert "must be a bare name" in detail


WRONG_HEADERS = {
    "100 1 250 1000\n../100.dat 16 200 12 0 0 0 0 II\n": "which is not uploaded with it",
    "100 1 250 1000\n/etc/passwd 8 200 12 0 0 0 0 II\n": "which is not uploaded with it",
    "100 1 250 1000\nother.dat 16 200 12 0 0 0 0 II\n": "names 'other.dat', which is not uploaded",
    "100 1 250 1000\nsub/100.dat 16 200 12 0 0 0 0 II\n": "which is not uploaded",
    "100 1 250 900000000000\n100.dat 16 200 12 0 0 0 0 II\n": "samples",
    "100 1 250 5000\n100.dat 16 200 12 0 0 0 0 II\n": "100.dat",
    "100 99999 250 100\n": "100.hea",
    "100 1 0.000001 1000\n100.dat 16 200 12 0 0 0 0 II\n": "100.hea",
    "100 1 250 1000\n100.dat 516 200 12 0 0 0 0 II\n": "FLAC",
    "100/2 1 250 1000\n../a 500\nb 500\n": "100.hea",
    "100 1 250 100000000\n~ 0 200 12 0 0 0 0 II\n": "samples",
    "": "100.hea",
    "\0\0\0": "100.hea",
}


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_wrong_headers_are_told(client, header):
    files = [("files", ("100.hea", header.encode())), ("files", ("100.dat", bytes(2000)))]
    assert WRONG_HEADERS[header] in problem_of(client.post("/predict", files=files), 422)


def test_forms_are_checked(client, demo_folder):
    header = next(demo_folder.glob("*.hea"))
    good = files_of(header)
    cases = [
        ({}, good[:1], "which is not uploaded with it"),
        ({}, good[1:], "a .hea with its signal files or one .csv; given: "),
        ({}, [*good, good[0]], "is uploaded twice"),
        ({}, [*good, ("files", ("other.hea", b"x 1"))], "one recording was expected"),
        ({"fs": "nan"}, good, "fs 'nan': must be a rate in Hz from 25 to 50000"),
        ({"fs": "1e-300"}, good, "must be a rate in Hz"),
        ({"fs": "0x10"}, good, "must be a rate in Hz"),
        ({"rum": "demo"}, good, "field 'rum': unknown; did you mean run?"),
        ({"run": ["demo", "demo"]}, good, "field run: is given twice"),
        ({"leads": "MLII"}, good, "expected slot=lead pairs"),
    ]
    for data, files, message in cases:
        assert message in problem_of(client.post("/predict", files=files, data={"run": "demo"} | data), 422)
    for name in ("nothing", "../runs/demo", "/etc", "demo/best.pt", "..", "latest"):
        assert "there is none of that name" in problem_of(client.post("/predict", files=good, data={"run": name}), 404)
    many = [("files", (f"{k}.dat", b"1")) for k in range(uploads.MAX_FILES + 1)]
    assert "Too many files" in problem_of(client.post("/predict", files=many), 400)
    fields = {f"f{k}": "1" for k in range(uploads.MAX_FIELDS + 1)}
    assert "Too many fields" in problem_of(client.post("/predict", files=good, data=fields), 400)
    assert "maximum size" in problem_of(client.post("/predict", files=good, data={"leads": "x" * 5000}), 400)


def test_records_of_nothing_are_told(client, tmp_path):
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    header = write_record(tmp_path, "nan", np.full((12, 5000), np.nan), 500, leads)
    problem_of(client.post("/predict", files=files_of(header), data={"run": "demo"}), 422)
    header = write_record(tmp_path, "short", np.zeros((12, 3)), 500, leads)
    problem_of(client.post("/predict", files=files_of(header), data={"run": "demo"}), 422)
    header = write_record(tmp_path, "pressure", np.zeros((1, 5000)), 500, ["ABP"])
    problem_of(client.post("/predict", files=files_of(header), data={"run": "demo"}), 422)


def test_multi_segment_records_are_read(client, mitdb_like, tmp_path):
    import wfdb

    header = mitdb_like / "101.hea"
    n = pqrst.header(header).n_samples
    lines = [f"whole/2 2 360 {2 * n}", f"101 {n}", f"101 {n}"]
    files = [*files_of(header), ("files", ("whole.hea", "\n".join(lines).encode()))]
    told = client.post("/predict", files=files, data={"run": "beats"})
    assert told.status_code == 200, told.text
    assert told.json()["duration_s"] == pytest.approx(120)
    assert wfdb.rdheader(str(mitdb_like / "101")).fs == 360


def test_too_much_is_refused_however_it_comes(roots, demo_folder, monkeypatch):
    monkeypatch.setattr(api, "MAX_UPLOAD_BYTES", 10_000)
    with TestClient(api.application(service_of(roots)), raise_server_exceptions=False) as client:
        files = files_of(next(demo_folder.glob("*.hea")))
        assert "the body may have 10,000 bytes" in problem_of(client.post("/predict", files=files), 413)
        request = client.build_request("POST", "/predict", files=files)
        chunks = (request.read()[k : k + 1000] for k in range(0, 100_000, 1000))
        kind = {"content-type": request.headers["content-type"]}
        assert "the body may have" in problem_of(client.post("/predict", content=chunks, headers=kind), 413)
        large = {"dataset": "demo", "run": "x", "settings": {"a": "x" * 70_000}}
        assert "65,536 bytes" in problem_of(client.post("/training/start", json=large), 413)


# ------------------------------------------------------------------------------------------- lists, problems, token


def test_datasets_and_models_are_listed(client, roots):
    listed = {each["name"]: each for each in client.get("/datasets").json()["datasets"]}
    assert set(listed) == {"demo", "mitdb"}
    summary = json.loads((roots / "prepared" / "demo" / "dataset.json").read_text())
    for key in ("recipe", "classes", "task", "rows", "records", "patients"):
        assert listed["demo"][key] == summary[key]
    assert listed["demo"]["counts"] == summary["classes_after"]
    told = client.get("/models").json()
    assert [run["name"] for run in told["runs"]] == ["demo", "beats", "bundled"]
    assert (told["runs"][1]["dataset"], told["runs"][1]["epoch"]) == ("mitdb", 2)
    report = json.loads((roots / "runs" / "demo" / "report" / "metrics.json").read_text())
    assert told["runs"][0]["test"]["macro_f1"] == report["macro_f1"]
    assert "cnn1d" in [network["name"] for network in told["networks"]]


def test_a_score_of_zero_is_a_score(roots, tmp_path):
    shutil.copytree(roots / "runs" / "demo", tmp_path / "demo")
    (tmp_path / "demo" / "report" / "metrics.json").write_text(
        '{"accuracy": 0.0, "macro_f1": 0.5, "macro_auroc": null}'
    )
    listed = answers.models_of({"demo": tmp_path / "demo"}).runs[0]
    assert listed.test == {"accuracy": 0.0, "macro_f1": 0.5}


def test_damaged_datasets_and_runs_are_named_apart(tmp_path):
    (tmp_path / "prepared" / "bad").mkdir(parents=True)
    (tmp_path / "prepared" / "bad" / "dataset.json").write_text("{")
    (tmp_path / "runs" / "bad").mkdir(parents=True)
    (tmp_path / "runs" / "bad" / "best.pt").write_bytes(b"")
    with TestClient(api.application(service_of(tmp_path))) as client:
        told = client.get("/datasets").json()
        assert told["datasets"] == [] and told["unreadable"][0].startswith("bad/dataset.json: not JSON")
        assert client.get("/models").json()["unreadable"][0].startswith("bad: no run there")


def test_health_tells_what_runs(client):
    told = client.get("/health").json()
    assert (told["ready"], told["simd"], told["model"], told["notice"]) == (True, pqrst.simd(), "demo", guard.NOTICE)


def test_every_description_says_that_it_is_no_medical_device(client):
    tree = client.get("/openapi.json").json()
    assert guard.NOTICE in tree["info"]["description"]
    for route in tree["paths"].values():
        for method in route.values():
            assert "Not a medical device." in method["description"]


def test_wrong_routes_and_bodies_are_problems(client):
    assert "no route /nothing" in problem_of(client.get("/nothing"), 404)
    assert "DELETE is no method of /models" in problem_of(client.delete("/models"), 405)
    assert "multipart/form-data" in problem_of(client.post("/predict", content=b"x"), 415)
    assert "multipart/form-data" in problem_of(client.post("/predict", json={}), 415)
    kind = {"content-type": "multipart/form-data"}
    assert "boundary" in problem_of(client.post("/predict", content=b"x", headers=kind), 400)
    kind = {"content-type": "multipart/form-data; boundary=b"}
    problem_of(client.post("/predict", content=b"--c\r\n\r\n", headers=kind), 400)
    problem_of(client.post("/predict", content=b"", headers=kind), 422)
    of_json = {"content-type": "application/json"}
    deep = b'{"settings":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    for body, status in [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (deep, 400),
        (b"[" * 900 + b"]" * 900, 422),
        (b"null", 422),
        (b'{"dataset": NaN, "run": Infinity}', 422),
        (b"1" * 5000, 400),
        (b"", 422),
    ]:
        problem_of(client.post("/training/start", content=body, headers=of_json), status)
    problem_of(client.post("/training/start", content=b"{}"), 422)  # of no type


def test_a_fault_of_the_service_is_a_problem_without_a_trace(roots, monkeypatch):
    monkeypatch.setattr(answers, "datasets_of", lambda _: 1 / 0)
    with TestClient(api.application(service_of(roots)), raise_server_exceptions=False) as client:
        assert problem_of(client.get("/datasets"), 500) == "the service has failed; its log says how"


def test_a_token_is_asked_for_everywhere_but_at_health(roots):
    with TestClient(api.application(service_of(roots), "a secret"), raise_server_exceptions=False) as client:
        assert client.get("/health").status_code == 200
        for path in ("/models", "/metrics", "/openapi.json", "/nothing", "/health/"):
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "a secret"}):
                answer = client.get(path, headers=given)
                assert "a bearer token is needed" in problem_of(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        for scheme in ("Bearer", "bearer"):  # RFC 9110: in any case
            assert client.get("/models", headers={"authorization": f"{scheme} a secret"}).status_code == 200


def test_it_does_not_listen_beyond_this_machine_without_a_token(monkeypatch, tmp_path):
    monkeypatch.delenv("ECG_API_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(Stop, match="set ECG_API_TOKEN"):
            api.main(["--host", host, "--runs", str(tmp_path)])
    assert all(guard.is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))


@pytest.mark.parametrize("token", [" ", "secret ", "a\tb", "\udcff"])
def test_a_token_that_no_request_can_hold_is_refused(monkeypatch, tmp_path, token):
    monkeypatch.setenv("ECG_API_TOKEN", token)
    with pytest.raises(Stop, match="ECG_API_TOKEN: holds blanks at its ends, or characters that no header can hold"):
        api.main(["--host", "0.0.0.0", "--port", "-1", "--runs", str(tmp_path)])


def test_a_port_that_is_taken_is_told():
    with guard.listen("127.0.0.1", 0) as taken, pytest.raises(Stop, match="--port .*: Address already in use"):
        guard.listen("127.0.0.1", taken.getsockname()[1])


def test_a_missing_extra_is_one_line():
    code = "import sys, runpy; sys.modules['fastapi'] = None; runpy.run_path('apps/api.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    line = 'error: the service needs fastapi, which is not installed: pip install -e ".[apps]"\n'
    assert (done.returncode, done.stderr) == (2, line)


# ------------------------------------------------------------------------------------------------ export


def exporter(tmp_path, body):
    """A stand-in for export.py: `run`, `kind` and `out` are what it is asked for."""
    path = tmp_path / "export.py"
    head = "import sys\nrun, kind, out = sys.argv[1], sys.argv[3], sys.argv[5]\n"
    path.write_text(head + textwrap.dedent(body))
    return (sys.executable, str(path))


def test_an_export_comes_back_whole(roots, tmp_path):
    command = exporter(tmp_path, "open(out, 'wb').write((run + kind).encode() * 100_000)")
    with TestClient(api.application(service_of(roots, export=command))) as client:
        for kind, suffix in (("onnx", ".onnx"), ("torch", ".pt2")):
            answer = client.post("/models/export", json={"run": "demo", "format": kind})
            assert answer.status_code == 200
            assert answer.content == f"{roots / 'runs' / 'demo'}{kind}".encode() * 100_000
            assert answer.headers["content-disposition"] == f'attachment; filename="demo{suffix}"'
        bundled = client.post("/models/export", json={"run": "bundled"})
        assert bundled.content[:200].startswith(str(infer.PRETRAINED).encode())


def test_an_export_that_fails_says_why(roots, tmp_path):
    command = exporter(tmp_path, "print('warning: x', file=sys.stderr); sys.exit(f'error: {run}: cannot go to {out}')")
    with TestClient(api.application(service_of(roots, export=command))) as client:
        detail = problem_of(client.post("/models/export", json={"run": "demo"}), 422)
        assert detail == "demo: cannot go to model.onnx"
        for run in ("nothing", "..", "demo/best.pt"):
            assert client.post("/models/export", json={"run": run}).status_code in (404, 422)
        detail = problem_of(client.post("/models/export", json={"run": "demo", "format": "tflite"}), 422)
        assert "'onnx' or 'torch'" in detail


def test_an_export_that_breaks_is_a_fault_of_the_service(roots, tmp_path):
    command = exporter(tmp_path, "1 / 0")
    with TestClient(api.application(service_of(roots, export=command)), raise_server_exceptions=False) as client:
        assert "has failed" in problem_of(client.post("/models/export", json={"run": "demo"}), 500)


def test_one_export_at_a_time_and_not_for_ever(roots, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "EXPORT_S", 0.5)
    service = service_of(roots, export=exporter(tmp_path, "import time; time.sleep(30)"))
    with TestClient(api.application(service)) as client:
        assert "was not done in 0.5 s" in problem_of(client.post("/models/export", json={"run": "demo"}), 503)
        with service.exporting:
            answer = client.post("/models/export", json={"run": "demo"})
        assert "another run is being exported" in problem_of(answer, 503)
        assert answer.headers["retry-after"] == "10"


# ------------------------------------------------------------------------------------------------ trainings

STAND_IN = """
    import signal, sys, time
    from pathlib import Path
    signal.signal(signal.SIGTERM, lambda *_: (print("stopped", flush=True), sys.exit(143)))
    import yaml
    tree = yaml.safe_load(Path(sys.argv[2]).read_text())
    run = Path(tree["run_dir"])
    run.mkdir(exist_ok=True)
    print("begun", run, *sys.argv[3:], flush=True)
    epochs = tree["training"]["epochs"]
    if epochs == 999:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (run / "metrics.csv").write_text("epoch,train_loss\\n1,0.5\\n")
    while epochs > 100 and not (run / "go").exists():
        time.sleep(0.02)
    if epochs == 13:
        print("error: no luck", file=sys.stderr)
        sys.exit(2)
"""


@pytest.fixture
def trainings(roots, tmp_path, monkeypatch):
    """A client of a service whose train.py is a stand-in: more than 100 epochs last until the run holds `go`."""
    (tmp_path / "train.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setattr(jobs, "REPOSITORY", tmp_path)
    monkeypatch.setattr(api, "EVERY_S", 0.05)
    service = api.Service(tmp_path / "runs", roots / "prepared", tmp_path / "state")
    (tmp_path / "runs").mkdir()
    with TestClient(api.application(service), raise_server_exceptions=False) as client:
        client.root, client.state, client.service = tmp_path / "runs", tmp_path / "state", service
        yield client
        cancel_all(service)


def cancel_all(service):
    """Wait until no training is left, so that no process of a test is left either."""

    def left():
        return [job_id for job_id, job in service.jobs.jobs.items() if job.state in ("queued", "running")]

    for job_id in left():
        service.jobs.cancel(job_id)
    until(lambda: not left())


def begin(client, run, epochs, status=202, **more):
    asked = {"dataset": "demo", "run": run, "settings": {"training": {"epochs": epochs}}, **more}
    answer = client.post("/training/start", json=asked)
    if status != 202:
        return problem_of(answer, status)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def status_of(client, job_id):
    return client.get(f"/training/{job_id}/status").json()


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def reaches(client, job_id, state):
    until(lambda: status_of(client, job_id)["state"] == state)
    return status_of(client, job_id)


def test_trainings_run_one_after_another(trainings):
    first, second = begin(trainings, "one", 500), begin(trainings, "two", 2)
    until(lambda: status_of(trainings, first)["epoch"] == 1)
    told = status_of(trainings, first)
    assert (told["state"], told["epochs"], told["metrics"], told["before"]) == (
        "running",
        500,
        {"train_loss": 0.5},
        None,
    )
    assert told["eta_s"] > 0 and told["log"] == ["begun one"]
    told = status_of(trainings, second)
    assert (told["state"], told["before"], told["eta_s"], told["log"]) == ("queued", 0, None, [])
    (trainings.root / "one" / "go").touch()
    reaches(trainings, first, "finished")
    assert reaches(trainings, second, "finished")["error"] is None


def test_a_training_that_fails_says_so(trainings):
    told = reaches(trainings, begin(trainings, "bad", 13), "failed")
    assert told["error"] == "error: no luck"


def test_a_training_is_cancelled_in_the_queue_and_at_work(trainings):
    first, second = begin(trainings, "one", 500), begin(trainings, "two", 2)
    until(lambda: status_of(trainings, first)["epoch"] == 1)
    assert trainings.post(f"/training/{second}/cancel").json()["state"] == "cancelled"
    trainings.post(f"/training/{first}/cancel")
    assert reaches(trainings, first, "cancelled")["log"][-1] == "stopped"
    assert trainings.post(f"/training/{first}/cancel").json()["state"] == "cancelled"
    assert "there is none of that id" in problem_of(trainings.post("/training/none/cancel"), 404)
    assert "there is none of that id" in problem_of(trainings.get("/training/none/status"), 404)


def test_a_training_that_does_not_hear_is_killed(trainings, monkeypatch):
    monkeypatch.setattr(jobs, "GRACE_S", 0.3)
    job = begin(trainings, "deaf", 999)
    until(lambda: status_of(trainings, job)["epoch"] == 1)
    trainings.post(f"/training/{job}/cancel")
    reaches(trainings, job, "cancelled")


def test_a_run_is_replaced_only_if_asked(trainings):
    reaches(trainings, begin(trainings, "one", 2), "finished")
    assert "exists already" in begin(trainings, "one", 2, 409)
    job = begin(trainings, "one", 500, overwrite=True)
    until(lambda: status_of(trainings, job)["epoch"] == 1)
    assert status_of(trainings, job)["log"] == ["begun one --overwrite"]
    assert "queued or running" in begin(trainings, "one", 2, 409, overwrite=True)


def test_a_training_that_has_ended_does_not_tell_of_the_run_that_replaced_its_own(trainings):
    first = begin(trainings, "one", 2)
    told = reaches(trainings, first, "finished")
    assert (told["epoch"], told["metrics"]) == (1, {"train_loss": 0.5})
    second = begin(trainings, "one", 500, overwrite=True)
    until(lambda: status_of(trainings, second)["epoch"] == 1)
    (trainings.root / "one" / "metrics.csv").write_text("epoch,train_loss\n1,0.7\n2,0.6\n")
    assert status_of(trainings, second)["metrics"] == {"train_loss": 0.6}
    assert status_of(trainings, first) == told
    again = jobs.Queue(trainings.state, trainings.root)
    assert again.status(first) == told


def test_no_run_takes_the_name_of_the_bundled_model(trainings):
    assert "run bundled: is the model that comes with the scripts" in begin(trainings, "bundled", 2, 409)


def test_a_folder_called_bundled_does_not_hide_the_bundled_model(trainings, demo_run):
    shutil.copytree(demo_run, trainings.root / "bundled")
    named = [run["name"] for run in trainings.get("/models").json()["runs"]]
    assert named.count("bundled") == 1


def test_the_queue_has_an_end(trainings, monkeypatch):
    monkeypatch.setattr(jobs, "MAX_QUEUED", 2)
    job = begin(trainings, "one", 500)
    until(lambda: status_of(trainings, job)["state"] == "running")
    begin(trainings, "two", 500)
    begin(trainings, "three", 500)
    assert "2 trainings wait already" in begin(trainings, "four", 500, 429)
    asked = {"dataset": "demo", "run": "four"}
    assert trainings.post("/training/start", json=asked).headers["retry-after"] == "60"
    assert "ecg_queued_trainings 2.0" in trainings.get("/metrics").text


def test_another_service_finds_what_the_first_has_begun(trainings):
    first, second, third = (begin(trainings, name, 500) for name in ("one", "two", "three"))
    until(lambda: status_of(trainings, first)["epoch"] == 1)
    trainings.service.close()
    ended = trainings.service.jobs
    ended.jobs.clear()
    found = jobs.Queue(trainings.state, trainings.root)
    assert [found.status(job)["state"] for job in (first, second, third)] == ["running", "queued", "queued"]
    found.advance()
    assert found.status(first)["state"] == "running"
    (trainings.root / "one" / "go").touch()
    until(lambda: found.advance() or found.status(first)["state"] == "finished")
    until(lambda: found.advance() or found.status(second)["epoch"] == 1)
    os.killpg(found.jobs[second].pid, 9)  # it dies, and its shell, while nobody looks
    again = jobs.Queue(trainings.state, trainings.root)
    until(lambda: again.advance() or again.status(second)["state"] == "failed")
    assert again.status(second)["error"] == "begun two"
    until(lambda: again.advance() or again.status(third)["epoch"] == 1)
    (trainings.root / "three" / "go").touch()
    until(lambda: again.advance() or again.status(third)["state"] == "finished")
    for child in (*ended.children.values(), *found.children.values()):
        child.wait()  # in one process all are children of it


def test_a_process_that_ends_while_the_queue_looks_is_waited_for(trainings, monkeypatch):
    queue = jobs.Queue(trainings.state / "other", trainings.root)
    job = queue.add(Settings(run_dir="one"), "demo", False)
    queue.advance()
    pid = queue.jobs[job.id].pid

    def dies_first(_):
        os.killpg(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return False

    monkeypatch.setattr(jobs, "is_alive", dies_first)
    queue.advance()
    assert queue.status(job.id)["state"] == "failed"
    assert not queue.children


def test_a_process_of_the_same_number_is_not_taken_for_the_job(trainings):
    queue = jobs.Queue(trainings.state / "other", trainings.root)
    job = jobs.Job("1", "one", "demo", 2, False, 1.0, started=1.0, state="running", pid=os.getpid(), born="long ago 1")
    (queue.folder / "1").mkdir()
    queue._keep(job)
    queue.cancel("1")  # would end these tests
    queue.advance()
    assert queue.status("1")["state"] == "cancelled"


def test_damaged_jobs_are_left_out(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "job.json").write_text('{"id": 1')
    assert jobs.Queue(tmp_path, tmp_path).jobs == {}
    assert "1/job.json: is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epochs": 0}}, "training.epochs = 0"),
        ({"training": {"epoch": 3}}, "unknown setting training.epoch; did you mean training.epochs?"),
        ({"training": {"learning_rate": float("inf")}}, "NaN, infinity"),
        ({"training": {"workers": 100_000}}, "settings.training.workers = 100000: must be at most"),
        ({"trainin": {}}, "settings.trainin: may not be given"),
        ({"run_dir": "/etc"}, "settings.run_dir: may not be given"),
        ({"data": {"dir": "/etc"}}, "settings.data.dir: may not be given"),
        ({"data": {"raw": "/etc"}}, "settings.data.raw: may not be given"),
        ({"data": "/etc"}, "data = '/etc'"),
        ({"recipe": {"fs": 100}}, "settings.recipe: may not be given"),
        ({"evaluation": {"challenge": "/etc/passwd"}}, "settings.evaluation: may not be given"),
        ({"model": {"name": "cnn"}}, "model 'cnn': unknown; did you mean cnn1d?"),
        ({"model": {"arguments": {"wide": 3}}}, "cnn1d has no 'wide'"),
        ({"model": {"arguments": {"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}}}, "deeper than 6 levels"),
        ({"model": {"name": "\ud800"}}, "half a character"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_queued(trainings, settings, message):
    body = json.dumps({"dataset": "demo", "run": "one", "settings": settings})
    answer = trainings.post("/training/start", content=body, headers={"content-type": "application/json"})
    assert message in problem_of(answer, 422)
    assert not [*trainings.state.glob("*/job.json")]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "", ".hidden", "a/b", "x" * 65, "a\n", "ä", "a b"])
def test_runs_and_datasets_are_named_not_placed(trainings, name):
    problem_of(trainings.post("/training/start", json={"dataset": "demo", "run": name}), 422)
    problem_of(trainings.post("/training/start", json={"dataset": name, "run": "one"}), 422)
    assert "there is none of that name" in problem_of(
        trainings.post("/training/start", json={"dataset": "dem", "run": "one"}), 404
    )


@pytest.mark.slow
def test_a_training_of_the_service_is_one_of_train(roots, tmp_path, monkeypatch):
    """Same settings, same weights; the run can then be asked at once."""
    import torch

    import bundle
    import train

    monkeypatch.setenv("ECG_TRAINING__EPOCHS", "7")  # not the request's
    settings = {"training": {"epochs": 1, "batch_size": 16, "threads": 1}, "model": {"name": "cnn1d"}}
    service = api.Service(tmp_path / "runs", roots / "prepared", tmp_path / "state")
    with TestClient(api.application(service)) as client:
        job = client.post("/training/start", json={"dataset": "demo", "run": "one", "settings": settings}).json()
        until(lambda: status_of(client, job["job_id"])["state"] not in ("queued", "running"), 120)
        told = status_of(client, job["job_id"])
        assert (told["state"], told["epoch"]) == ("finished", 1), told
        assert str(tmp_path) not in json.dumps(told)
        assert client.get("/models").json()["runs"][0]["name"] == "one"
    monkeypatch.delenv("ECG_TRAINING__EPOCHS")
    words = ["--data.raw", "demo", "--data.dir", str(roots / "prepared" / "demo"), "--data.folds", "10"]
    words += ["--run", str(tmp_path / "two"), "--training.epochs", "1", "--training.batch_size", "16"]
    train.main([*words, "--training.threads", "1"])
    one, two = (bundle.load(tmp_path / name / "best.pt").network.state_dict() for name in ("runs/one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in two)


# ------------------------------------------------------------------------------------------------ its own description


def test_a_fault_of_a_reader_does_not_hang(client, mitdb_like, monkeypatch):
    import readers

    monkeypatch.setattr(readers, "read", lambda *_, **__: next(iter(())))
    assert "has failed" in problem_of(client.post("/predict", files=files_of(mitdb_like / "101.hea")), 500)


@pytest.fixture
def described(roots, tmp_path, monkeypatch):
    """The service with stand-ins for train.py and export.py, as schemathesis calls it."""
    schemathesis = pytest.importorskip("schemathesis", reason="comes with the test extra")
    (tmp_path / "train.py").write_text("")
    monkeypatch.setattr(jobs, "REPOSITORY", tmp_path)
    command = exporter(tmp_path, "open(out, 'wb').write(b'x')")
    service = api.Service(roots / "runs", roots / "prepared", tmp_path / "state", command)
    app = api.application(service)
    app.router.lifespan_context = lambda _: contextlib.nullcontext()  # it would be begun and ended for each call
    service.start()
    job_id = service.jobs.add(Settings(run_dir="one"), "demo", False).id
    yield schemathesis.openapi.from_asgi("/openapi.json", app), job_id
    cancel_all(service)
    service.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:jsonschema")
def test_answers_are_as_the_openapi_describes_them(described):
    """schemathesis calls each route with what it allows and what it does not."""
    import hypothesis
    from hypothesis import strategies
    from schemathesis import GenerationMode, checks
    from schemathesis.specs.openapi import checks as of_openapi

    schema, job_id = described
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    chosen = [
        checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]
    called = {}
    known = {"POST /models/export": {"run": "bundled"}, "POST /training/start": {"dataset": "demo"}}
    for operation, mode in itertools.product(schema.get_all_operations(), GenerationMode):
        operation = operation.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=strategies.booleans())
        @hypothesis.settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[*hypothesis.HealthCheck],
        )
        def calls(case, real):
            if real and isinstance(case.body, dict):
                case.body |= known.get(case.operation.label, {})
            if real and case.path_parameters:
                case.path_parameters["job_id"] = job_id
            answer = case.call_and_validate(checks=chosen)
            called.setdefault(case.operation.label, Counter())[answer.status_code] += 1

        calls()
    assert len(called) == 9, called
    for label, status in [
        ("POST /predict", 422),
        ("POST /training/start", 202),
        ("POST /training/start", 404),
        ("POST /training/start", 422),
        ("POST /training/{job_id}/cancel", 200),
        ("POST /models/export", 200),
    ]:
        assert called[label][status], called

"""Tests of a real server on loopback by clients that mean no good, that go away, and that find it started again.

Each test ends with a look at the server: it answers a record right, and holds no more files or folders than before.
"""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("fastapi", reason="comes with the apps extra")
import httpx

import infer
from apps import api, guard

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at the server through /proc")

HEAD_S, BODY_S = 1.0, 2.0  # of the server in these tests, so that they need not wait long
# The server with shorter times, and a sign when it listens.
START = (
    "import sys; sys.path.insert(0, {root!r}); from apps import api, guard; import script; "
    "guard.HEADER_S, guard.BODY_S, guard.LINGER_S = {head}, {body}, 0.5; script.run(lambda: api.main(sys.argv[1:]))"
)
GROWTH = 200 << 20  # bytes of memory that a burst of requests may leave with the allocator
TOLERANCE = 1e-5  # a row's scores, whatever else is in its batch


class Server:
    """A server in a process of its own, with a folder for its temporary files."""

    def __init__(self, folder, token=""):
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        code = START.format(root=str(REPOSITORY), head=HEAD_S, body=BODY_S)
        words = ["--port", "0", "--runs", folder / "runs", "--prepared", folder / "prepared"]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "ECG_API_TOKEN": token, "OMP_NUM_THREADS": "1"}
        self.log = (folder / "server.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], cwd=folder, env=environment, stderr=self.log
        )
        until(lambda: "listening on" in self.said() or self.process.poll() is not None, 60)
        found = re.search(r"listening on http://127.0.0.1:(\d+)", self.said())
        assert found, self.said()
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        until(self.answers, 60)

    def answers(self):
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def said(self):
        return Path(self.log.name).read_text()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def n_files(self):
        return len([*Path(f"/proc/{self.process.pid}/fd").iterdir()])

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10

    def close(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)
        self.log.close()


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def place(demo_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(demo_run, folder / "runs" / "demo")
    shutil.copytree(demo_run.parent / "prepared", folder / "prepared" / "demo")
    return folder


@pytest.fixture(scope="module")
def server(place):
    server = Server(place)
    yield server
    server.close()
    assert "Traceback" not in server.said()


@pytest.fixture(scope="module")
def good(demo_folder, place):
    """A form that is answered, and what with."""
    header = sorted(demo_folder.glob("*.hea"))[3]
    form = [("files", (path.name, path.read_bytes())) for path in (header, header.with_suffix(".dat"))]
    return form, json.loads(infer.predict(header, run=place / "runs" / "demo").to_json())["findings"]


@pytest.fixture(autouse=True)
def unharmed(server, good):
    """After each test the server is as it was, and right."""
    ask(server, good)
    files, memory = server.n_files(), server.memory()
    yield
    ask(server, good)
    until(lambda: server.n_files() <= files + 1)
    until(lambda: not [*server.temporary.iterdir()])
    assert server.memory() < memory + GROWTH


def ask(server, good, client=httpx):
    form, expected = good
    answer = client.post(f"{server.url}/predict", files=form, data={"run": "demo"}, timeout=60)
    assert answer.status_code == 200, answer.text
    for one, other in zip(answer.json()["findings"], expected, strict=True):
        assert one["class"] == other["class"]
        assert abs(one["probability"] - other["probability"]) < TOLERANCE


def raw(server, *pieces, wait=True):
    """Send bytes as they are; the answer's status and body, None where the connection is closed without one."""
    with server.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:  # the server has closed it
            pass
        return heard(connection) if wait else None


def heard(connection):
    told = b""
    try:
        while piece := connection.recv(65536):
            told += piece
            head, _, body = told.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    except OSError:
        pass
    if not told:
        return None
    head, _, body = told.partition(b"\r\n\r\n")
    assert b"Traceback" not in body
    status = int(head.split(b" ")[1])
    assert status < 400 or b"application/problem+json" in head
    return status, body.decode()


def head_of(path="/predict", **headers):
    lines = [f"POST {path} HTTP/1.1", "host: localhost", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


MULTIPART = "multipart/form-data; boundary=b"


def part(name, content=b"", field="files"):
    return f'--b\r\ncontent-disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content


# ------------------------------------------------------------------------------------------------ what is no HTTP


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,  # TLS
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /%00%ff%2e%2e/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
)
def test_noise_is_answered_or_hung_up_on(server, noise):
    answer = raw(server, noise)
    assert answer is None or answer[0] in (200, 400, 404, 415, 422)


def test_a_head_of_20_megabytes_is_cut_off(server):
    status, body = raw(server, b"GET /health HTTP/1.1\r\nhost: x\r\nx-large: ", *[b"x" * (1 << 20)] * 20) or (400, "")
    assert status == 400
    status, body = raw(server, b"GET /health HTTP/1.1\r\nhost: x\r\nx-large: ", b"x" * 70_000)
    assert (status, json.loads(body)["title"]) == (400, "Bad Request")


def test_a_head_that_never_ends_is_hung_up_on(server):
    with server.connect() as slow, server.connect() as silent:
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                slow.sendall(b"GET / HTTP/1.1\r\n" if not _ else b"x: y\r\n")
                time.sleep(0.1)
        assert silent.recv(10) == b""
        assert time.monotonic() - began < 9


def test_a_body_that_never_ends_is_hung_up_on(server):
    with server.connect() as connection:
        connection.sendall(head_of(content_type=MULTIPART, content_length=1000) + part("100.hea"))
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"-")
                time.sleep(0.1)
        assert BODY_S <= time.monotonic() - began < 9
    answer = raw(server, head_of(content_type=MULTIPART, content_length=1000), b"--b")
    assert answer[0] == 408 and f"in {BODY_S:g} s" in json.loads(answer[1])["detail"]


# ------------------------------------------------------------------------------------------------ lengths


def test_a_length_of_gigabytes_is_refused_before_a_byte_comes(server):
    for length in (api.MAX_UPLOAD_BYTES + 1, 10**12, 10**19):
        status, body = raw(server, head_of(content_type=MULTIPART, content_length=length))
        assert (status, "67,108,864 bytes" in body) == (413, True)


def test_a_length_that_lies_is_found_out(server):
    truncated = raw(server, head_of(content_type=MULTIPART, content_length=50), part("100.hea", b"100 1 250 10"))
    assert truncated[0] in (400, 422)  # the rest is no request of its own
    short = part("100.hea", b"100 1 250 10")
    with server.connect() as connection:
        connection.sendall(head_of(content_type=MULTIPART, content_length=len(short) + 500) + short)
        connection.shutdown(socket.SHUT_WR)  # and no more comes
        answer = heard(connection)
    assert answer is None or answer[0] in (400, 408, 422)


def test_chunks_without_end_are_cut_off(server):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    begin = b"11\r\n" + b"--b\r\nx: y\r\n\r\nxx\r\n\r\n"
    pieces = [head_of(content_type=MULTIPART, transfer_encoding="chunked"), begin, *[chunk] * 1200]
    answer = raw(server, *pieces)
    assert answer is None or answer[0] in (400, 413)


def test_a_file_beyond_the_limit_is_cut_off_while_it_comes(server):
    with server.connect() as connection:
        connection.sendall(head_of(content_type=MULTIPART, transfer_encoding="chunked"))
        start = part("100.hea")
        connection.sendall(f"{len(start):x}\r\n".encode() + start + b"\r\n")
        sent = 0
        try:
            while sent < 20 * api.MAX_UPLOAD_BYTES:
                connection.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                sent += 1 << 20
        except OSError:
            pass
        assert sent < 20 * api.MAX_UPLOAD_BYTES
        answer = heard(connection)
    assert answer is None or answer[0] == 413


def test_a_json_beyond_the_limit_is_refused(server):
    for path in ("/training/start", "/models/export"):
        answer = httpx.post(f"{server.url}{path}", content=b"[" * 70_000, headers={"content-type": "application/json"})
        assert answer.status_code == 413


# ------------------------------------------------------------------------------------------------ files


def post(server, files, **data):
    answer = httpx.post(f"{server.url}/predict", files=files, data=data, timeout=60)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == guard.PROBLEM
        assert str(server.temporary) not in answer.text
    return answer


def test_a_wfdb_header_of_20_megabytes_is_refused(server):
    answer = post(server, [("files", ("100.hea", b"100 1 250 10\n" + b"# comment\n" * 2_000_000))])
    assert (answer.status_code, "a header may have" in answer.json()["detail"]) == (422, True)


def test_no_name_leads_out_of_the_upload(server, tmp_path):
    marker = tmp_path / "outside.dat"
    for name in ("../outside.hea", "/tmp/outside.hea", "..%2foutside.hea", "a\0b.hea", "\\\\host\\x.hea", "%00.hea"):
        assert post(server, [("files", (name, b"x 1 250 10\n"))]).status_code == 422
    for inside in (
        "../../etc/passwd",
        "/etc/passwd",
        str(marker),
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        ".",
    ):
        for kind in (8, 16, 212, 516):
            text = f"100 1 250 100\n{inside} {kind} 200 12 0 0 0 0 II\n"
            assert post(server, [("files", ("100.hea", text.encode()))]).status_code == 422
        text = f"100/2 1 250 200\n{inside} 100\n{inside} 100\n"
        assert post(server, [("files", ("100.hea", text.encode()))]).status_code == 422
        text = "100/2 1 250 200\n100 100\n100 100\n"  # of itself
        assert post(server, [("files", ("100.hea", text.encode()))]).status_code == 422
    assert not marker.exists()


def no_json(word):
    pytest.fail(f"{word} is no JSON")


def test_tables_that_are_none_are_told(server):
    tables = {
        "empty": b"",
        "binary": os.urandom(5000),
        "one line": b"I",
        "gzip": gzip.compress(b"I,II\n" + b"0,0\n" * 1_000_000),
        "wide": b",".join([b"I"] * 100_000),
        "infinite": b"I\n" + b"inf\n" * 1000,
        "huge": b"I\n" + b"1e308\n" * 1000,
        "long number": b"I\n" + b"9" * 100_000,
        "quotes": b'"' * 100_000,
        "formula": b"I\n=cmd()\n" * 100,
    }
    for name, content in tables.items():
        answer = post(server, [("files", ("ecg.csv", content))], fs="250", run="bundled")
        assert answer.status_code in (200, 422), name
        json.loads(answer.text, parse_constant=no_json)


def test_an_archive_is_not_unpacked(server):
    bomb = gzip.compress(b"\0" * (200 << 20))
    headers = {"content-encoding": "gzip", "content-type": MULTIPART}
    assert httpx.post(f"{server.url}/predict", content=bomb, headers=headers, timeout=60).status_code in (400, 422)
    text = b"100 1 250 100000000\n100.dat 516 200 12 0 0 0 0 II\n"
    assert post(server, [("files", ("100.hea", text)), ("files", ("100.dat", bomb))]).status_code == 422


def test_signals_of_nothing_but_noise_are_answered(server, rng):
    for kind in (8, 16, 24, 32, 61, 80, 160, 212, 310, 311):
        text = "\n".join(["100 12 500 5000", *(f"100.dat {kind} 200 12 0 0 0 0 {lead}" for lead in LEADS)])
        files = [("files", ("100.hea", text.encode())), ("files", ("100.dat", rng.bytes(240_000)))]
        answer = post(server, files, run="demo")
        json.loads(answer.text, parse_constant=no_json)


LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def test_random_forms_are_answered(server, good):
    """The good form with bytes changed, cut out and doubled."""
    request = httpx.Request("POST", f"{server.url}/predict", files=good[0])
    body, kind = request.read(), request.headers["content-type"]
    rng = np.random.default_rng(7)
    with httpx.Client(timeout=60) as client:
        for _ in range(150):
            changed = bytearray(body)
            for place in rng.integers(0, 1500, rng.integers(1, 20)):  # the heads and the header
                changed[place] = rng.integers(256)
            first, last = sorted(rng.integers(0, len(changed), 2))
            changed[first:last] = changed[first:last] * int(rng.integers(0, 3))
            answer = client.post(f"{server.url}/predict", content=bytes(changed), headers={"content-type": kind})
            assert answer.status_code in (200, 400, 413, 422), answer.text
            assert "Traceback" not in answer.text


def test_json_that_is_none_is_told(server):
    for body in (b"{", b"NaN", b"[" * 60_000, b'{"dataset": NaN}', b'{"run": Infinity}', b"\xff" * 99, b"1" * 60_000):
        for path in ("/training/start", "/models/export"):
            answer = httpx.post(f"{server.url}{path}", content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 422), (body[:20], answer.text)
            assert answer.headers["content-type"] == guard.PROBLEM


# ------------------------------------------------------------------------------------------------ clients that leave


def test_uploads_that_break_off_leave_nothing(server, good):
    request = httpx.Request("POST", f"{server.url}/predict", files=good[0])
    body = request.read()
    head = head_of(content_type=request.headers["content-type"], content_length=len(body))
    for sent in np.linspace(0, len(body) - 1, 20).astype(int):
        raw(server, head, body[:sent], wait=False)
    raw(server, head, body, wait=False)  # and one that does not wait for its answer


def test_a_thousand_connections_at_once(server, good):
    form, _ = good
    request = httpx.Request("POST", f"{server.url}/predict", files=form, data={"run": "demo"})
    body = request.read()
    whole = head_of(content_type=request.headers["content-type"], content_length=len(body)) + body
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        connections = [server.connect() for _ in range(1000)]
        try:
            for connection in connections:
                connection.settimeout(120)
            with ThreadPoolExecutor(100) as pool:
                told = [*pool.map(lambda c: exchange(c, whole), connections)]
        finally:
            for connection in connections:
                connection.close()
    statuses = [answer and answer[0] for answer in told]
    # those that had sent nothing for HEAD_S while others were served are hung up on; a client tries again
    assert set(statuses) <= {200, 503, None}
    assert statuses.count(200) > 100


def exchange(connection, whole):
    try:
        connection.sendall(whole)
    except OSError:
        return None
    return heard(connection)


def test_fifty_clients_are_all_answered_right(server, good):
    def client(_):
        with httpx.Client() as session:
            for _ in range(4):
                ask(server, good, session)

    with ThreadPoolExecutor(50) as pool:
        assert len([*pool.map(client, range(50))]) == 50


# ------------------------------------------------------------------------------------------------ trainings


def begin(server, run, epochs=20_000):
    settings = {"training": {"epochs": epochs, "batch_size": 16, "threads": 1, "patience": 0}}
    asked = {"dataset": "demo", "run": run, "settings": settings}
    answer = httpx.post(f"{server.url}/training/start", json=asked)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def status_of(server, job):
    return httpx.get(f"{server.url}/training/{job}/status").json()


@pytest.mark.slow
def test_a_training_outlives_its_client_and_the_service(place, tmp_path):
    """The service is killed in the middle; the next one finds the training, cancels it, and goes on with the queue."""
    folder = tmp_path / "place"
    shutil.copytree(place / "prepared", folder / "prepared")
    (folder / "runs").mkdir()
    first = Server(folder)
    running, waiting = begin(first, "one"), begin(first, "two", 1)
    until(lambda: status_of(first, running)["epoch"] > 0, 120)
    first.close(signal.SIGKILL)
    second = Server(folder)
    try:
        told = status_of(second, running)
        assert (told["state"], told["run"]) == ("running", "one")
        assert status_of(second, waiting)["state"] == "queued"
        epoch = told["epoch"]
        until(lambda: status_of(second, running)["epoch"] > epoch, 60)
        assert httpx.post(f"{second.url}/training/{running}/cancel").status_code == 200
        until(lambda: status_of(second, running)["state"] == "cancelled", 60)
        assert "go on with: python train.py --resume" in status_of(second, running)["log"][-1]
        until(lambda: status_of(second, waiting)["state"] == "finished", 120)
    finally:
        second.close()


def test_one_service_at_a_time_has_the_state(server):
    code = START.format(root=str(REPOSITORY), head=1, body=1)
    words = [sys.executable, "-c", code, "--port", "0", "--runs", str(server.folder / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*\.jobs: is in use by process .*\n", done.stderr)


@pytest.mark.slow
def test_the_load_is_measured(place):
    """benchmarks/api.py prints a line for the bare model and for each number of clients, none with an error."""
    words = ["--run", str(place / "runs" / "demo"), "--clients", "1", "3", "--seconds", "0.5", "--records", "4"]
    command = [sys.executable, "benchmarks/api.py", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.endswith(" 0")]
    assert [line.split(",")[0] for line in lines] == ["network alone", "infer.predict_record", "service", "service"]

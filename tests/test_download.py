import gzip
import hashlib
import io
import json
import os
import re
import signal as signals
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from conftest import REPOSITORY, heed_ctrl_c

import download
import preprocess
from data import Dataset
from script import Stop

LIST = "SHA256SUMS.txt"
SIZE = 300_000  # bytes of the file that gets faults: several chunks, but not a multiple of one
CUT = 200_000  # where its connection breaks: behind some whole chunks


class Home(ThreadingHTTPServer):
    """Serve files by path, each with its own faults, and log what was asked for and sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.files, self.faults, self.log = {}, {}, []
        self.answered = Counter()

    def publish(self, files):
        """Serve the files and a list of their checksums, as PhysioNet does."""
        self.files |= files
        lines = [f"{hashlib.sha256(content).hexdigest()} {name}\n" for name, content in files.items()]
        self.files[LIST] = "".join(lines).encode()

    def asked(self, name):
        """(Range, bytes sent) of each request for a file."""
        return [(asked, sent) for path, asked, sent in self.log if path == name]

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = unquote(self.path[1:])
        fault = self.server.faults.get(name, {})
        number = self.server.answered[name]  # how often the file was asked for before
        self.server.answered[name] += 1
        asked = self.headers.get("Range")
        content = self.server.files.get(name)
        statuses = fault.get("status", [])
        if number < len(statuses) or content is None:
            return self.answer(name, asked, statuses[number] if content is not None else 404, b"")
        content = fault.get("bytes", [])[number] if number < len(fault.get("bytes", [])) else content
        if fault.get("zips") and "gzip" in self.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content)
        start, headers = 0, dict(fault.get("headers", {}))
        if asked and not fault.get("no_ranges"):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + fault.get("shift", 0)
            if start >= len(content):
                return self.answer(name, asked, 416, b"")
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(
            name, asked, 206 if "Content-Range" in headers else 200, content[start:], headers, fault, number
        )

    def answer(self, name, asked, status, body, headers=None, fault=None, number=0):
        fault = fault or {}
        cuts = fault.get("cut", [CUT])
        cut = cuts[number % len(cuts)] if number < fault.get("cuts", 0) else len(body)
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        lie = fault.get("lie", 0) if number < fault.get("lies", 100) else 0
        self.send_header("Content-Length", str(len(body) + lie))
        self.end_headers()
        self.server.log.append((name, asked, len(body[:cut])))
        for start in range(0, cut, 10_000):
            self.wfile.write(body[start : min(start + 10_000, cut)])
            time.sleep(fault.get("pause_s", 0))
        self.wfile.flush()
        if lie or cut < len(body):
            self.close_connection = True
            if fault.get("reset"):
                time.sleep(0.05)  # otherwise the bytes sent are lost with the connection
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()


@pytest.fixture
def home(monkeypatch):
    monkeypatch.setattr(download, "WAITS_S", (0.001, 0.002, 0.003, 0.004))
    with Home() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tree(home, rng):
    """A home with five files, one of them large and one empty."""
    files = {f"p00/10{i}.hea": b"10%d 2 360\n" % i for i in range(3)}
    home.publish({**files, "100.dat": rng.bytes(SIZE), "a folder/empty #1?.txt": b""})
    return home


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fetch(home, folder, **more):
    download.download("mitdb", folder, home.url, **more)


def test_every_file_of_the_list_arrives_at_its_path(tree, tmp_path):
    fetch(tree, tmp_path / "new/mitdb")
    assert contents(tmp_path / "new/mitdb") == tree.files


def test_what_is_stored_zipped_arrives_zipped(tree, tmp_path):
    tree.faults["100.dat"] = {"headers": {"Content-Encoding": "gzip"}}
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files


def test_no_server_is_asked_to_zip_on_the_way(tree, tmp_path):
    tree.faults["100.dat"] = {"zips": True}
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files


def test_a_second_run_asks_for_the_list_alone_and_for_what_has_changed(tree, tmp_path):
    fetch(tree, tmp_path)
    (tmp_path / "p00/101.hea").write_bytes(b"changed")
    (tmp_path / "p00/102.hea").unlink()
    tree.log.clear()
    fetch(tree, tmp_path)
    assert sorted(name for name, _, _ in tree.log) == [LIST, "p00/101.hea", "p00/102.hea"]
    assert contents(tmp_path) == tree.files


@pytest.mark.parametrize("separator", [" ", "  ", " *"])
def test_each_way_to_write_a_list_of_sums_is_read(home, tmp_path, separator):
    home.files = {"x.dat": b"x", LIST: f"{hashlib.sha256(b'x').hexdigest().upper()}{separator}x.dat".encode()}
    fetch(home, tmp_path)
    assert (tmp_path / "x.dat").read_bytes() == b"x"


# ------------------------------------------------------------------------------------------------ connections


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_connection_goes_on_where_it_stopped(tree, tmp_path, reset):
    tree.faults["100.dat"] = {"cuts": 1, "reset": reset}
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files
    (_, first), (asked, second) = tree.asked("100.dat")
    start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
    assert first == CUT
    assert CUT - download.CHUNK < start <= CUT if reset else start == CUT  # a reset loses what is under way
    assert second == SIZE - start


def test_a_part_of_an_earlier_run_is_not_fetched_again(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(tree.files["100.dat"][:123_457])
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [("bytes=123457-", SIZE - 123_457)]
    assert contents(tmp_path) == tree.files


def test_a_part_that_lacks_only_its_name_is_not_fetched_at_all(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(tree.files["100.dat"])
    fetch(tree, tmp_path)
    assert not tree.asked("100.dat")
    assert contents(tmp_path) == tree.files


def test_a_server_without_ranges_sends_the_file_from_its_start(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(tree.files["100.dat"][:1000])
    tree.faults["100.dat"] = {"no_ranges": True}
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [("bytes=1000-", SIZE)]
    assert contents(tmp_path) == tree.files


def test_a_part_longer_than_the_file_starts_over(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(tree.files["100.dat"] + b"more")
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [(f"bytes={SIZE + 4}-", 0), (None, SIZE)]  # 416
    assert contents(tmp_path) == tree.files


def test_a_range_other_than_the_one_asked_for_starts_over(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(tree.files["100.dat"][:1000])
    tree.faults["100.dat"] = {"shift": 10}
    fetch(tree, tmp_path)
    assert [asked for asked, _ in tree.asked("100.dat")] == ["bytes=1000-", None]
    assert contents(tmp_path) == tree.files


def test_a_list_that_is_cut_goes_on_where_it_stopped(tree, tmp_path):
    tree.faults[LIST] = {"cuts": 1, "cut": [80]}
    fetch(tree, tmp_path)
    assert tree.asked(LIST) == [(None, 80), ("bytes=80-", len(tree.files[LIST]) - 80)]
    assert contents(tmp_path) == tree.files


def test_the_list_is_not_put_together_from_ranges_that_do_not_meet(tree, tmp_path):
    tree.faults[LIST] = {"cuts": 1, "cut": [80], "shift": 10}
    fetch(tree, tmp_path)
    assert [asked for asked, _ in tree.asked(LIST)] == [None, "bytes=80-", None]
    assert contents(tmp_path) == tree.files


def test_a_part_of_another_version_is_noticed_and_fetched_from_scratch(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(b"x" * 1000)
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [("bytes=1000-", SIZE - 1000), (None, SIZE)]
    assert contents(tmp_path) == tree.files


def test_any_number_of_cuts_is_survived_while_each_try_brings_something(tree, tmp_path):
    tree.faults["100.dat"] = {"cuts": 20, "cut": [download.CHUNK + 1]}
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files


@pytest.mark.parametrize("cut", [[CUT], [CUT, CUT // 2]])
def test_a_server_without_ranges_that_always_cuts_is_left_after_five_tries_without_progress(tree, tmp_path, cut):
    tree.faults["100.dat"] = {"cuts": 100, "cut": cut, "no_ranges": True}
    with pytest.raises(Stop, match=r"1 of 5 files failed; first: http://\S+/100\.dat: "):
        fetch(tree, tmp_path)
    assert len(tree.asked("100.dat")) == 1 + 5
    assert contents(tmp_path).keys() == tree.files.keys() - {"100.dat"} | {"100.dat.part"}


@pytest.mark.parametrize("statuses", [[500, 500], [503, 429, 408, 502], [500] * 4])
def test_a_server_in_trouble_is_asked_again(tree, tmp_path, statuses):
    tree.faults = {"100.dat": {"status": statuses}, LIST: {"status": statuses}}
    fetch(tree, tmp_path)
    assert len(tree.asked("100.dat")) == len(tree.asked(LIST)) == len(statuses) + 1
    assert contents(tmp_path) == tree.files


def test_the_fifth_try_without_an_answer_is_the_last(tree, tmp_path):
    tree.faults["100.dat"] = {"status": [500] * 5}
    with pytest.raises(Stop, match=r"100\.dat: 500 Internal Server Error"):
        fetch(tree, tmp_path)
    assert contents(tmp_path).keys() == tree.files.keys() - {"100.dat"}  # nor an empty .part


def test_waits_grow_and_start_anew_after_progress(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_S", (0.25, 0.5, 1.25, 2.5))
    tree.faults["100.dat"] = {"status": [500, 500, 500], "cuts": 4}  # the fourth answer is cut, the fifth whole
    digest = hashlib.sha256(tree.files["100.dat"]).hexdigest()
    waits = []
    with download.requests.Session() as session, download.tqdm(total=0, disable=True) as bar:
        fetcher = download.Fetcher(tmp_path, session, bar)
        monkeypatch.setattr(fetcher.stopping, "wait", waits.append)
        fetcher.fetch(download.File("100.dat", tree.url + "100.dat", digest=digest))
    assert waits == [0.25, 0.5, 1.25, 0.25]


# ------------------------------------------------------------------------------------------------ wrong bytes


def test_wrong_bytes_are_named_and_never_stand_under_the_files_name(tree, tmp_path):
    wrong = b"y" * SIZE
    tree.faults["100.dat"] = {"bytes": [wrong] * 9}
    expected, found = (hashlib.sha256(b).hexdigest() for b in (tree.files["100.dat"], wrong))
    with pytest.raises(
        Stop, match=rf"1 of 5 files failed; .*/100\.dat: its sha256 should be {expected}, but is {found}"
    ):
        fetch(tree, tmp_path)
    assert len(tree.asked("100.dat")) == 1
    assert contents(tmp_path).keys() == tree.files.keys() - {"100.dat"}


def test_wrong_bytes_after_a_resumed_fetch_are_fetched_from_scratch_once(tree, tmp_path):
    (tmp_path / "100.dat.part").write_bytes(b"y" * 1000)
    tree.faults["100.dat"] = {"bytes": [b"y" * SIZE] * 9}
    with pytest.raises(Stop, match="should be"):
        fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [("bytes=1000-", SIZE - 1000), (None, SIZE)]
    assert not (tmp_path / "100.dat.part").exists()


def test_a_wrong_file_stays_until_the_right_one_is_there(tree, tmp_path):
    (tmp_path / "100.dat").write_bytes(b"old")
    tree.faults["100.dat"] = {"bytes": [b"y"] * 9}
    with pytest.raises(Stop, match="should be"):
        fetch(tree, tmp_path)
    assert (tmp_path / "100.dat").read_bytes() == b"old"
    tree.faults.clear()
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files


def test_a_length_that_promises_too_much_costs_no_byte(tree, tmp_path):
    tree.faults["100.dat"] = {"lie": 5}
    fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files
    assert tree.asked("100.dat") == [(None, SIZE)]


def test_a_length_that_promises_too_little_is_caught_by_the_checksum(tree, tmp_path):
    tree.faults["100.dat"] = {"lie": -5}
    found = hashlib.sha256(tree.files["100.dat"][:-5]).hexdigest()
    with pytest.raises(Stop, match=rf"100\.dat: its sha256 should be \w+, but is {found}"):
        fetch(tree, tmp_path)
    assert contents(tmp_path).keys() == tree.files.keys() - {"100.dat"}


# ------------------------------------------------------------------------------------------------ files that fail


def test_a_missing_file_is_named_and_the_others_arrive(tree, tmp_path, capsys):
    del tree.files["p00/101.hea"]
    with pytest.raises(Stop, match=r"mitdb: 1 of 5 files failed; first: http://\S+/p00/101\.hea: 404 Not Found"):
        fetch(tree, tmp_path)
    assert contents(tmp_path) == tree.files
    assert f"\n{tree.url}p00/101.hea: 404 Not Found\n" in capsys.readouterr().err


def test_a_home_that_has_gone_is_not_asked_for_every_file(home, tmp_path):
    home.publish({f"{number}.dat": b"" for number in range(200)})
    home.files = {LIST: home.files[LIST]}
    with pytest.raises(Stop, match=r"(\d+) of 200 files failed, (\d+) were not tried; first") as stop:
        fetch(home, tmp_path)
    failed, untried = (int(number) for number in re.findall(r"(\d+) (?:of|were)", str(stop.value)))
    assert failed + untried == 200
    assert download.MOST_FAILED <= failed < download.MOST_FAILED + 4


def test_offline_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAITS_S", (60.0,) * 4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Stop, match=rf"^http://127\.0\.0\.1:{port}/{LIST}: .*[Rr]efused$"):
        download.download("mitdb", tmp_path, f"http://127.0.0.1:{port}")
    assert not contents(tmp_path)


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(Stop, match="No scheme supplied"):
        download.download("mitdb", tmp_path, "data/mitdb")


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    message = r"mitbd: cannot be downloaded \(possible: mitdb, .*codetest\); did you mean mitdb\?"
    with pytest.raises(Stop, match=message):
        download.download("mitbd", tmp_path)
    with pytest.raises(Stop, match=r"codetest\)$"):
        download.download("xyz", tmp_path)


def test_every_home_is_reached_by_https():
    assert all(re.fullmatch(r"https://(physionet|zenodo)\.org/[\w./-]+", url) for url in download.HOMES.values())


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/x", "//server/x", "C:/x", "C:x", "a\\..\\x", "a\\x", "\\x", "..", "."],
)
def test_a_path_that_leaves_the_folder_is_refused_before_anything_is_fetched(tree, tmp_path, name):
    tree.files[LIST] += f"{hashlib.sha256(b'x').hexdigest()}  {name}\n".encode()
    with pytest.raises(Stop, match=f"names {re.escape(repr(name))}, which lies outside the folder"):
        fetch(tree, tmp_path / "mitdb")
    assert contents(tmp_path).keys() == {f"mitdb/{LIST}"}


@pytest.mark.parametrize("page", [b"<html>log in</html>\n", b"0123 x.dat\n", b"\xff\xfe", b"a" * 64 + b"\n"])
def test_a_page_that_is_no_list_is_refused(home, tmp_path, page):
    home.files[LIST] = page
    with pytest.raises(Stop, match=f"{LIST}: line 1 is not a checksum followed by a path"):
        fetch(home, tmp_path)


def test_an_empty_list_is_refused(home, tmp_path):
    home.files[LIST] = b""
    with pytest.raises(Stop, match="names no files"):
        fetch(home, tmp_path)


def test_a_list_of_an_earlier_run_is_not_continued(tree, tmp_path):
    (tmp_path / f"{LIST}.part").write_bytes(b"x" * 10)
    fetch(tree, tmp_path)
    assert tree.asked(LIST) == [(None, len(tree.files[LIST]))]
    assert contents(tmp_path) == tree.files


# ------------------------------------------------------------------------------------------------ disk and keyboard


def test_a_full_disk_is_named_and_the_part_stays(tree, tmp_path):
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limit[1]))  # beyond this size, a write fails as on a full disk
    try:
        with pytest.raises(OSError) as error:
            fetch(tree, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(tmp_path / "100.dat")
    assert (tmp_path / "100.dat.part").read_bytes() == tree.files["100.dat"][:150_000]
    tree.log.clear()
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [("bytes=150000-", SIZE - 150_000)]
    assert contents(tmp_path) == tree.files


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_leaves_parts_that_the_next_run_goes_on_with(tree, tmp_path):
    tree.faults["100.dat"] = {"pause_s": 0.1}  # 3 s in all
    code = "import sys, pathlib, script, download; "
    code += "script.run(lambda: download.download('mitdb', pathlib.Path(sys.argv[2]), sys.argv[1]))"
    command = [sys.executable, "-c", code, tree.url, str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, preexec_fn=heed_ctrl_c)
    part = tmp_path / "100.dat.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signals.SIGINT)
    assert process.wait(20) == 130
    assert not (tmp_path / "100.dat").exists()
    have = part.stat().st_size
    assert part.read_bytes() == tree.files["100.dat"][:have]
    tree.faults.clear()
    tree.log.clear()
    fetch(tree, tmp_path)
    assert tree.asked("100.dat") == [(f"bytes={have}-", SIZE - have)]
    assert contents(tmp_path) == tree.files


def test_files_come_in_parallel_and_no_more_than_asked(home, tmp_path, monkeypatch):
    home.publish({f"{number}.dat": b"x" for number in range(12)})
    running, most, lock = 0, 0, threading.Lock()
    answer = Handler.answer

    def slow(self, name, *arguments):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.03)
        with lock:
            running -= 1
        answer(self, name, *arguments)

    monkeypatch.setattr(Handler, "answer", slow)
    fetch(home, tmp_path, n_parallel=3)
    assert most == 3
    assert contents(tmp_path) == home.files


def test_a_second_run_in_one_folder_stops_and_leaves_the_first_alone(tree, tmp_path):
    tree.faults["100.dat"] = {"pause_s": 0.02}  # 0.6 s in all
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, tree, tmp_path)
        while not (first.done() or (tmp_path / "100.dat.part").exists()):
            time.sleep(0.005)
        with pytest.raises(Stop, match=rf"{tmp_path}: is in use by process {os.getpid()} "):
            fetch(tree, tmp_path)
        first.result()
    assert contents(tmp_path) == tree.files
    assert [sent for _, sent in tree.asked("100.dat")] == [SIZE]


def test_preprocess_fetches_a_dataset_to_where_it_then_seeks_the_recordings(home, tmp_path, mitdb_like, monkeypatch):
    home.publish({path.name: path.read_bytes() for path in mitdb_like.iterdir()})
    monkeypatch.setitem(download.HOMES, "mitdb", home.url)
    monkeypatch.chdir(tmp_path)
    preprocess.main(["--dataset", "mitdb", "--download", "--data.dir", "out"])
    assert contents(tmp_path / "raw/mitdb") == home.files
    assert len(Dataset(tmp_path / "out")) > 100


def test_nothing_is_asked_for_after_a_stop(tree, tmp_path):
    with download.requests.Session() as session, download.tqdm(total=0, disable=True) as bar:
        fetcher = download.Fetcher(tmp_path, session, bar)
        fetcher.stopping.set()
        with pytest.raises(CancelledError):
            fetcher.fetch(download.File("100.dat", tree.url + "100.dat", digest="00"))
    assert not tree.log


@pytest.fixture
def bars(monkeypatch):
    """The progress bars of a test, which count although there is no terminal."""
    made = []
    monkeypatch.setattr(download, "tqdm", lambda **more: made.append(Bar(**more)) or made[-1])
    monkeypatch.setattr(download.tqdm, "write", lambda *_, **__: None, raising=False)
    return made


class Bar(download.tqdm):
    def __init__(self, **more):
        super().__init__(**{**more, "disable": False, "file": io.StringIO()})


@pytest.mark.parametrize("part", [0, 1000])
def test_the_bar_ends_at_the_bytes_of_all_files(tree, tmp_path, bars, part):
    (tmp_path / "p00").mkdir()
    (tmp_path / "p00/100.hea").write_bytes(tree.files["p00/100.hea"])
    (tmp_path / "p00/101.hea").write_bytes(b"wrong")
    (tmp_path / "100.dat.part").write_bytes(b"x" * part)
    tree.faults["100.dat"] = {"cuts": 1}
    fetch(tree, tmp_path)
    assert bars[0].n == bars[0].total == sum(map(len, tree.files.values()))


def test_the_bar_knows_the_bytes_of_a_record_beforehand_and_counts_each_once(record, tmp_path, bars):
    for _ in range(2):
        fetch_record(record, tmp_path)
        assert bars[-1].n == bars[-1].total == sum(map(len, record.files.values()))


# ------------------------------------------------------------------------------------------------ Zenodo


def zip_of(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def publish_record(home, files, **changes):
    """Serve a Zenodo record: its description at /record, its files at the addresses in the description."""
    entries = []
    for key, content in files.items():
        home.files[f"record/files/{key}/content"] = content
        entry = {"key": key, "size": len(content), "checksum": f"md5:{hashlib.md5(content).hexdigest()}"}
        entries.append({**entry, "links": {"self": f"{home.url}record/files/{key}/content"}, **changes})
    home.files["record"] = json.dumps({"id": 1, "files": entries}).encode()


@pytest.fixture
def record(home, rng):
    """A record like that of CODE-15%: a table, and two zips with an HDF5 file each."""
    inside = {f"exams_part{i}.hdf5": rng.bytes(SIZE) for i in range(2)}
    zips = {f"exams_part{i}.zip": zip_of({f"exams_part{i}.hdf5": inside[f"exams_part{i}.hdf5"]}) for i in range(2)}
    publish_record(home, {"exams.csv": b"exam_id\n1\n", **zips})
    home.inside = {**inside, "exams.csv": b"exam_id\n1\n", "zenodo.json": home.files["record"]}
    return home


def fetch_record(home, folder):
    download.download("code15", folder, home.url + "record")


def data(folder):
    return {name: content for name, content in contents(folder).items() if not name.endswith(download.NOTE)}


def test_a_record_arrives_unpacked_and_is_not_fetched_again(record, tmp_path):
    fetch_record(record, tmp_path)
    assert data(tmp_path) == record.inside
    record.log.clear()
    fetch_record(record, tmp_path)
    assert [name for name, _, _ in record.log] == ["record"]
    assert data(tmp_path) == record.inside


@pytest.mark.parametrize("damage", ["gone", "short", "note"])
def test_a_zip_is_fetched_again_where_what_it_held_is_gone(record, tmp_path, damage):
    fetch_record(record, tmp_path)
    unpacked = tmp_path / "exams_part1.hdf5"
    if damage == "gone":
        unpacked.unlink()
    elif damage == "short":
        unpacked.write_bytes(b"short")
    else:
        (tmp_path / f"exams_part1.zip{download.NOTE}").write_bytes(b"{")
    record.log.clear()
    fetch_record(record, tmp_path)
    assert [name for name, _, _ in record.log] == ["record", "record/files/exams_part1.zip/content"]
    assert data(tmp_path) == record.inside


def test_a_zip_whose_unpacking_was_interrupted_is_unpacked_without_fetching(record, tmp_path):
    packed = record.files["record/files/exams_part0.zip/content"]
    (tmp_path / "exams_part0.zip").write_bytes(packed)
    (tmp_path / "exams_part0.hdf5.part").write_bytes(b"half")
    fetch_record(record, tmp_path)
    assert not record.asked("record/files/exams_part0.zip/content")
    assert data(tmp_path) == record.inside


def test_a_new_version_of_a_zip_is_fetched(record, tmp_path):
    fetch_record(record, tmp_path)
    publish_record(record, {"exams_part0.zip": zip_of({"exams_part0.hdf5": b"new"})})
    fetch_record(record, tmp_path)
    assert (tmp_path / "exams_part0.hdf5").read_bytes() == b"new"


def test_bytes_that_are_missing_by_the_size_in_the_list_are_asked_for(record, tmp_path):
    name = "record/files/exams_part0.zip/content"
    size = len(record.files[name])
    record.faults[name] = {"lie": -5, "lies": 1}
    fetch_record(record, tmp_path)
    assert record.asked(name) == [(None, size), (f"bytes={size - 5}-", 5)]
    assert data(tmp_path) == record.inside


@pytest.mark.parametrize("member", ["../x.hdf5", "/x.hdf5", "C:x.hdf5"])
def test_a_zip_that_leaves_the_folder_is_refused(home, tmp_path, member):
    publish_record(home, {"exams_part0.zip": zip_of({member: b"x"})})
    with pytest.raises(Stop, match="which lies outside the folder"):
        fetch_record(home, tmp_path / "code15")
    assert contents(tmp_path).keys() == {"code15/zenodo.json", "code15/exams_part0.zip"}


def test_a_zip_that_is_none_fails_alone(home, tmp_path):
    publish_record(home, {"a.zip": b"PK no", "b.zip": zip_of({"b.hdf5": b"b"})})
    with pytest.raises(Stop, match=r"1 of 2 files failed; first: \S+a\.zip: cannot be unpacked"):
        fetch_record(home, tmp_path)
    assert (tmp_path / "b.hdf5").read_bytes() == b"b"


@pytest.mark.parametrize(
    "changes", [{"key": "../x"}, {"checksum": "crc32:00"}, {"checksum": None}, {"size": "big"}, {"links": {}}]
)
def test_a_description_that_cannot_be_used_is_refused(home, tmp_path, changes):
    publish_record(home, {"a.csv": b"a"}, **changes)
    with pytest.raises(Stop, match=r"zenodo\.json: (names '../x'|is not the description of a Zenodo record)"):
        fetch_record(home, tmp_path)
    assert contents(tmp_path).keys() == {"zenodo.json"}

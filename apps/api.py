"""A service over HTTP: predictions of uploaded recordings, trainings in a queue, datasets, networks and their export.

    python apps/api.py                                      # http://127.0.0.1:8000, its routes at /docs
    ECG_API_TOKEN=... python apps/api.py --host 0.0.0.0     # beyond this machine only with a token
    curl -F files=@100.hea -F files=@100.dat http://127.0.0.1:8000/predict
    curl -F files=@ecg.csv -F fs=500 -F run=demo http://127.0.0.1:8000/predict

It stands before the same functions as the scripts: /predict answers what `infer.py --format json` prints, a training is
`train.py` in a process of its own. Requests name datasets and runs, never paths.
Not a medical device: for research and teaching only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    import python_multipart  # noqa: F401  # FastAPI asks for it only when a form comes
    import uvicorn
    from fastapi import APIRouter, Depends, FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
except ImportError as missing:
    print(f'error: the service needs {missing.name}, which is not installed: pip install -e ".[apps]"', file=sys.stderr)
    sys.exit(2)

import infer
import pqrst
import script
from apps import answers, jobs, uploads
from apps.answers import problems
from apps.guard import NOTICE, Guard, Metrics, Protocol, is_loopback, listen, problem
from apps.scoring import BUNDLED, Models, Scorer
from bundle import Bundle
from data import Summary
from script import Stop

ROOT = Path(__file__).resolve().parent.parent
MAX_UPLOAD_BYTES = 64 << 20
EXPORT_S = 240.0  # for export.py
EVERY_S = 0.5  # a look at the trainings
MAX_FILES = 65536  # open at a time, connections among them, where the machine allows it
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
# What the functions behind the routes raise, and how it is answered: the first that fits.
ANSWERED: dict[type[Exception], tuple[int, dict[str, str]]] = {
    jobs.Missing: (404, {}),
    jobs.Taken: (409, {}),
    jobs.Busy: (429, {"retry-after": "60"}),
    Stop: (422, {}),
    queue.Full: (503, {"retry-after": "1"}),
    ClientDisconnect: (400, {}),
}


@dataclass
class Service:
    """What the routes share: the folders of the command line, and the threads."""

    runs: Path
    prepared: Path
    state: Path
    export: tuple[str, ...] = (sys.executable, str(ROOT / "export.py"))
    metrics: Metrics = field(default_factory=Metrics)
    exporting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.models = Models(self.runs)
        self.jobs = jobs.Queue(self.state, self.runs, (self.prepared, ROOT))
        self.scorer = Scorer(self.metrics.batch_rows.observe)
        self.readers = ThreadPoolExecutor(os.cpu_count() or 1, "reader")
        self._ended = threading.Event()
        self._trainings = threading.Thread(target=self._look_after, name="trainings", daemon=True)

    def start(self) -> None:
        """Look after the trainings from now on."""
        self._trainings.start()

    def close(self) -> None:
        """End the threads; a training goes on."""
        self._ended.set()
        self._trainings.join()
        self.readers.shutdown(cancel_futures=True)
        self.scorer.close()

    @property
    def newest(self) -> str:
        """Name of the newest run."""
        return next(iter(self.models.names()), BUNDLED)

    @property
    def ready(self) -> bool:
        """Whether the threads are at work."""
        return self._trainings.is_alive() and self.scorer.is_alive

    def _look_after(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self.jobs.advance()
            except (Stop, OSError) as error:  # a full disk; the next look may find room
                print(f"warning: {script.one_line(error)}", file=sys.stderr)


async def _service(request: Request) -> Service:  # a coroutine: another function would take a thread
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]
router = APIRouter(responses=problems(401, 408, 413, 500, 503))

# ------------------------------------------------------------------------------------------------ the routes


@router.get("/health", responses=problems(503))
def health(service: Served) -> answers.Health:
    """Whether the service is ready, and what it runs on. Not a medical device."""
    if not service.ready:
        raise HTTPException(503, "a thread of the service has ended; start it again")
    try:
        release = version("pqrst")
    except PackageNotFoundError:  # run where it stands
        release = "not installed"
    return answers.Health(ready=True, version=release, simd=pqrst.simd(), model=service.newest, notice=NOTICE)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(service: Served, request: Request) -> Response:
    """Counts and times for Prometheus. Not a medical device."""
    told = service.metrics
    told.waiting.set(service.scorer.depth)
    told.queued.set(service.jobs.n_queued)
    return Response(generate_latest(told.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/datasets")
def datasets(service: Served) -> answers.Datasets:
    """The prepared datasets that a training may name. Not a medical device."""
    return answers.datasets_of(service.prepared)


@router.get("/models")
def models(service: Served) -> answers.Listed:
    """The networks that can be trained, and the trained runs, the newest first. Not a medical device."""
    return answers.models_of(service.models.names())


@router.post("/training/start", status_code=202, responses=problems(400, 404, 409, 422, 429))
def start(asked: answers.Start, service: Served) -> answers.Queued:
    """Queue a training on a prepared dataset; one runs at a time. Not a medical device."""
    if asked.run == BUNDLED:
        raise jobs.Taken(f"run {BUNDLED}: is the model that comes with the scripts; choose another name")
    folder = answers.dataset_folder(service.prepared, asked.dataset)
    summary = Summary.load(folder)
    kept = {key: value for key, value in summary.data.items() if key in ("target", "arguments", "split", "folds")}
    # train.py simulates the demo where no raw folder is named
    raw = str(ROOT / "demo") if summary.name == "demo" else None
    base = {"run_dir": asked.run, "data": {**kept, "name": summary.name, "dir": str(folder), "raw": raw}}
    settings = jobs.settings_of(asked.settings, base)
    job = service.jobs.add(settings, asked.dataset, asked.overwrite)
    return answers.Queued(job_id=job.id, state=job.state)


@router.get("/training/{job_id}/status", responses=problems(404, 422))
def status(job_id: str, service: Served) -> answers.Status:
    """How far a training is, with the end of its log. Not a medical device."""
    return answers.Status(**service.jobs.status(job_id))


@router.post("/training/{job_id}/cancel", responses=problems(404, 422))
def cancel(job_id: str, service: Served) -> answers.Status:
    """Take a training out of the queue, or end it after its step. Not a medical device."""
    service.jobs.cancel(job_id)
    return answers.Status(**service.jobs.status(job_id))


@router.post(
    "/models/export",
    response_class=StreamingResponse,
    responses={**problems(400, 404, 422), 200: {"content": {"application/octet-stream": {}}}},
)
def export(asked: answers.Export, service: Served) -> Response:
    """One file of a trained run that needs nothing else. Not a medical device."""
    folder = service.models.folder(asked.run)
    if not service.exporting.acquire(blocking=False):
        raise HTTPException(503, "another run is being exported; try again", {"retry-after": "10"})
    try:
        file = exported(service.export, folder, asked.format)
    finally:
        service.exporting.release()
    name = f"{asked.run}{SUFFIX[asked.format]}"
    headers = {
        "content-length": str(os.fstat(file.fileno()).st_size),
        "content-disposition": f'attachment; filename="{name}"',
    }
    return StreamingResponse(pieces(file), headers=headers, media_type="application/octet-stream")


@router.post(
    "/predict", response_model=answers.Answer, responses=problems(400, 404, 415, 422), openapi_extra=answers.FORM
)
async def predict(request: Request, service: Served) -> Response:
    """What a network says of a recording, as `infer.py --format json` does. Not a medical device."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, f"{kind or 'no content type'}: a recording comes as multipart/form-data")
    loop, scorer = asyncio.get_running_loop(), service.scorer
    scorer.coming += 1
    try:
        limits = {"max_files": uploads.MAX_FILES, "max_fields": uploads.MAX_FIELDS}
        async with request.form(**limits, max_part_size=uploads.MAX_FIELD_BYTES) as form:
            upload = uploads.parsed(form)
            fed = await loop.run_in_executor(service.readers, feed, service.models, upload)
    finally:
        scorer.coming -= 1
    logits = await scorer.logits(fed.trained, fed.fed)
    text = await loop.run_in_executor(service.readers, fed.said, logits)
    service.metrics.predictions.labels(fed.run).inc()
    return Response(text, media_type="application/json")


# ------------------------------------------------------------------------------------------------ behind them


@dataclass(frozen=True)
class Fed:
    """A record on its way through a network."""

    run: str
    trained: Bundle
    fed: infer.Fed
    folder: str  # that its name and warnings begin with, gone by now

    def said(self, logits: Any) -> str:
        """Return the prediction as JSON."""
        text = infer.prediction_of(self.fed, logits, self.trained, self.run).to_json()
        return uploads.without(self.folder, text)


def feed(kept: Models, upload: uploads.Upload) -> Fed:
    """Read an upload, choose its network and send it through the recipe; Stop says in one line what is wrong."""
    record, folder = uploads.read(upload)
    try:
        run, trained = kept.choose(upload.run, record)
        uploads.check_rows(record, trained.recipe)
        return Fed(run, trained, infer.feed(record, trained, upload.leads), folder)
    except jobs.Missing:
        raise
    except (Stop, ValueError) as error:
        raise Stop(uploads.without(folder, script.one_line(error))) from error


def exported(command: Sequence[str], run: Path, kind: str) -> IO[bytes]:
    """Export a run by export.py in a process of its own; returns the file, open and without a name."""
    with tempfile.TemporaryDirectory(prefix="ecg-") as folder:
        out = Path(folder) / f"model{SUFFIX[kind]}"
        words = [*command, str(run), "--format", kind, "--out", str(out)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=EXPORT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise HTTPException(503, f"the export was not done in {EXPORT_S:g} s") from error
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or [""])[-1]
            if not last.startswith("error: "):
                raise RuntimeError(f"export.py ended with status {done.returncode}: {last}")
            said = uploads.without(folder, last.removeprefix("error: "))
            raise Stop(said.replace(f"{run.parent}/", ""))
        return out.open("rb")


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Give a file piece by piece, and close it."""
    with file:
        while piece := file.read(1 << 18):
            yield piece


# ------------------------------------------------------------------------------------------------ the application


def application(service: Service, token: str = "") -> FastAPI:
    """Make the ASGI application of a service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    description = f"{(__doc__ or '').splitlines()[0]}\n\nThis is {NOTICE}."
    app = FastAPI(title="ECG service", version="1", description=description, lifespan=lifespan)
    app.state.service = service
    app.include_router(router)
    app.add_middleware(Guard, metrics=service.metrics, token=token, sizes={"/predict": MAX_UPLOAD_BYTES})
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
    for kind in ANSWERED:
        app.add_exception_handler(kind, _known)
    return app


def _http_problem(request: Request, error: Any) -> Response:
    said = {
        404: f"no route {request.url.path[:100]}; GET /docs shows them",
        405: f"{request.method} is no method of {request.url.path}",
    }
    detail = said.get(error.status_code) or str(error.detail)
    return problem(error.status_code, detail, request.url.path, error.headers)


def _invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    detail = f"{place}: {first['msg']}" if place else first["msg"]
    return problem(400 if first["type"] == "json_invalid" else 422, detail, request.url.path)


def _known(request: Request, error: Exception) -> Response:
    code, headers = next(answer for kind, answer in ANSWERED.items() if isinstance(error, kind))
    detail = script.one_line(error) or "the service is busy; try again"
    return problem(code, detail, request.url.path, headers)


def _unexpected(request: Request, _: Exception) -> Response:
    return problem(500, "the service has failed; its log says how", request.url.path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="apps/api.py",
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address; beyond this machine needs ECG_API_TOKEN")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="of the runs")
    parser.add_argument(
        "--prepared", type=Path, default=Path("prepared"), metavar="FOLDER", help="of the prepared datasets"
    )
    parser.add_argument(
        "--state", type=Path, metavar="FOLDER", help="of the trainings and their logs; .jobs in --runs where not given"
    )
    arguments = parser.parse_args(argv)
    token = os.environ.get("ECG_API_TOKEN", "")
    if not token and not is_loopback(arguments.host):
        raise Stop(f"--host {arguments.host}: others reach it; set ECG_API_TOKEN to a secret that they must send")
    if token != token.strip() or not token.isprintable():
        raise Stop("ECG_API_TOKEN: holds blanks at its ends, or characters that no header can hold; choose another")
    root = arguments.runs.absolute()
    state = (arguments.state or root / ".jobs").absolute()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_FILES), most))
    with listen(arguments.host, arguments.port) as opened, script.hold(state):
        service = Service(root, arguments.prepared.absolute(), state)
        with suppress(Stop):  # the network that most will use; what is wrong with it each request is told
            service.models.choose(service.newest, None)
        server = uvicorn.Server(
            uvicorn.Config(
                application(service, token),
                http=Protocol,
                ws="none",
                log_level="warning",
                timeout_graceful_shutdown=10,
            )
        )
        name = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"listening on http://{name}:{opened.getsockname()[1]}; {NOTICE}", file=sys.stderr, flush=True)
        server.run(sockets=[opened])


if __name__ == "__main__":
    script.run(main)

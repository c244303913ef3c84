"""Statements after which a process can no longer be copied by fork, and others after which it can."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """Something at the top level of a module.

    Attributes:
        before: what is executed before it, in one line.
        statement: itself.
        sound: asked once in each generation: whether it works as it would in a fresh process.
        reason: why it is a barrier; "" if it is none.
        needs: the packages that it is about.
    """

    before: str
    statement: str
    sound: str
    reason: str
    needs: str = ""

    def is_here(self) -> bool:
        """Whether what it is about is installed."""
        return all(importlib.util.find_spec(each) for each in self.needs.split())


KINDS = {
    "thread": Kind(
        "import threading; T = threading.Thread(target=threading.Event().wait, name='beat', daemon=True)",
        "T.start()",
        "T.is_alive()",
        "a thread (beat)",
    ),
    "sqlite": Kind(
        "import sqlite3",
        "DB = sqlite3.connect('data.sqlite3')",
        "DB.execute('create table if not exists t (x)') and DB.execute('insert into t values (1)')",
        "an open file (",
    ),
    "sqlite in memory": Kind(
        "import sqlite3",
        "DB = sqlite3.connect(':memory:')",
        "DB.execute('create table t (x)') and DB.execute('insert into t values (1)')",
        "",
    ),
    "half-read file": Kind(
        "import io",
        "FIRST = (FILE := open('lines.txt', 'rb', 0)).readline()",
        "(FIRST, FILE.readline()) == (b'1\\n', b'2\\n')",
        "an open file (",
    ),
    "closed file": Kind("", "with open('lines.txt') as FILE: FILE.read()", "FILE.closed", ""),
    "temporary folder": Kind(
        "import tempfile",
        "FOLDER = tempfile.TemporaryDirectory()",
        "os.path.isdir(FOLDER.name)",
        "a finalizer (TemporaryDirectory._cleanup)",
    ),
    "temporary folder removed at exit": Kind(
        "import atexit, shutil, tempfile",
        "FOLDER = tempfile.mkdtemp(dir='.')",
        "os.path.isdir(FOLDER) and atexit.register(shutil.rmtree, FOLDER)",
        "a temporary file (",
    ),
    "named temporary file": Kind(
        "import tempfile",
        "FILE = tempfile.NamedTemporaryFile(dir='.', delete=False).name",
        "os.path.exists(FILE)",
        "a temporary file (",
    ),
    "exit handler": Kind(
        "import shutil; from atexit import register",
        "register(os.remove, FILE := shutil.copy('lines.txt', f'../lines-{os.getpid()}'))",
        "os.path.exists(FILE)",
        "an exit handler (posix.remove)",
    ),
    "harmless exit handler": Kind(
        "import atexit, colorama, logging", "colorama.init(); atexit.register(logging.shutdown)", "True", ""
    ),
    "harmless exit handlers of libraries": Kind(
        "import atexit",
        "import matplotlib.pyplot, openpyxl, PIL.Image",
        "atexit._ncallbacks() > 3",
        "",
        "matplotlib openpyxl PIL",
    ),
    "half-written sheet": Kind(
        "import glob, tempfile, openpyxl; tempfile.tempdir = '.'; BOOK = openpyxl.Workbook(write_only=True)",
        "SHEET = BOOK.create_sheet(); SHEET.append([1]); SHEET.close()",
        "glob.glob('openpyxl.*')",
        "an exit handler (openpyxl.worksheet._writer._openpyxl_shutdown)",
        "openpyxl",
    ),
    "timer": Kind(
        "import signal",
        "signal.setitimer(signal.ITIMER_REAL, 1000)",
        "signal.getitimer(signal.ITIMER_REAL)[0] > 900",
        "a timer",
    ),
    "lock of multiprocessing": Kind(
        "import multiprocessing; context = multiprocessing.get_context('fork')",
        "LOCK = context.Lock()",
        "LOCK.acquire(timeout=1) and not LOCK.release()",
        "a lock of multiprocessing",
    ),
    "held lock of a file": Kind(
        "import fcntl",
        "fcntl.lockf(FILE := open('lock', 'w'), fcntl.LOCK_EX)",  # its predecessor's is waited for
        "not FILE.closed",
        "an open file (",
    ),
    "connection": Kind(
        "import http.client, os; C = http.client.HTTPConnection(os.environ['ELSEWHERE'])",
        "C.connect()",
        "C.sock and not C.request('GET', '/') and C.getresponse().status == 200",
        "an open socket",
    ),
    "pipe": Kind(
        "", "A, B = os.pipe()", "os.write(B, b'x') and os.read(A, 9) == b'x'", "an open pipe"
    ),
    "child": Kind(
        "import subprocess",
        "CHILD = subprocess.Popen(['sleep', '1000'])",
        "CHILD.poll() is None",
        "a child process",
    ),
    "event loop": Kind(
        "import asyncio", "LOOP = asyncio.new_event_loop()", "not LOOP.is_running()", "an event loop"
    ),
    "pool": Kind(
        "import multiprocessing.pool; context = multiprocessing.get_context('fork')",
        "POOL = context.Pool(1)",
        "POOL.apply_async(abs, [-1]).get(10) == 1",
        "a thread (",
    ),
    "log file": Kind(
        "import logging; LOG = logging.getLogger('app')",
        "LOG.addHandler(logging.FileHandler('app.log'))",
        "not LOG.warning('asked')",
        "",
    ),
    "log file written anew": Kind(
        "import logging; LOG = logging.getLogger('app')",
        "LOG.addHandler(logging.FileHandler('app.log', mode='w'))",
        "not LOG.warning('asked')",
        "an open file (",
    ),
    "requests": Kind(
        "import requests, os; S = requests.Session(); URL = 'http://' + os.environ['ELSEWHERE']",
        "S.get(URL)",
        "S.get(URL).status_code == 200",
        "an open socket",
        needs="requests",
    ),
    "sqlalchemy": Kind(
        "import sqlalchemy as a; ENGINE = a.create_engine('sqlite:///data.sqlite3')",
        "CONNECTION = ENGINE.connect()",
        "CONNECTION.execute(a.text('select 1')).scalar() == 1",
        "an open file (",
        needs="sqlalchemy",
    ),
    "apscheduler": Kind(
        "from apscheduler.schedulers.background import BackgroundScheduler; S = BackgroundScheduler()",
        "S.start()",
        "S.running and S._thread.is_alive()",
        "a thread (",
        needs="apscheduler",
    ),
    "sentry": Kind(
        "import sentry_sdk",
        "sentry_sdk.init('http://key@127.0.0.1:1/1')",
        "sentry_sdk.is_initialized()",
        "",
        needs="sentry_sdk",
    ),
    "loguru": Kind("", "from loguru import logger", "logger.info('heard') is None", "", needs="loguru"),
    "loguru, a file": Kind(
        "from loguru import logger",
        "logger.add('shop.log')",
        "logger.info('heard') is None and 'heard' in open('shop.log').read()",
        "an open file (",
        needs="loguru",
    ),
    "pymongo": Kind(
        "import pymongo",
        "MONGO = pymongo.MongoClient(connect=False, serverSelectionTimeoutMS=1)",
        "MONGO.options is not None",
        "",
        needs="pymongo",
    ),
    "urllib3": Kind(  # behind requests, elasticsearch, boto3
        "import urllib3",
        "POOL = urllib3.HTTPConnectionPool('127.0.0.1', 1)",
        "POOL.pool is not None",
        "",
        needs="urllib3",
    ),
    "zmq": Kind("", "import zmq", "zmq.Context().socket(zmq.PUB) is not None", "", needs="zmq"),
    "numba": Kind("import numba", "F = numba.njit(lambda x: x + 1)", "F(1) == 2", "", needs="numba"),
    "clickhouse": Kind(
        "", "import clickhouse_connect", "clickhouse_connect.common.version()", "", needs="clickhouse_connect"
    ),
    "opentelemetry": Kind(
        "from opentelemetry.sdk.trace import TracerProvider",
        "TRACES = TracerProvider()",
        "TRACES.get_tracer('shop').start_span('sold').end() is None",
        "",
        needs="opentelemetry opentelemetry.sdk",
    ),
    "filelock": Kind(
        "",
        "import filelock",
        "filelock.FileLock('app.lock').acquire(timeout=60).lock.release(force=True) is None",
        "",
        needs="filelock",
    ),
    "a lock of filelock": Kind(
        "import filelock",
        "FILE_LOCK = filelock.FileLock('app.lock')",
        "FILE_LOCK.acquire(timeout=60) and FILE_LOCK.release() is None",
        "a lock of filelock",
        needs="filelock",
    ),
    "huggingface_hub": Kind(  # behind gradio, transformers, torch
        "",
        "from huggingface_hub import get_session",
        "get_session() is not None",
        "",
        needs="huggingface_hub",
    ),
    "polars": Kind(
        "",
        "import polars",
        "polars.DataFrame({'x': [1, 2]}).lazy().select('x').collect().height == 2",
        "threads of a native library (",
        needs="polars",
    ),
    "grpc": Kind(
        "import grpc",
        "CHANNEL = grpc.insecure_channel('127.0.0.1:1')",
        "CHANNEL",
        "threads of a native library (",
        needs="grpc",
    ),
    "torch": Kind(
        "",
        "import torch",
        "float((torch.ones(600, 600) @ torch.ones(600, 600))[0, 0]) == 600",
        "an exit handler (",
        needs="torch",
    ),
    "openmp": Kind(
        "import numpy; from sklearn.cluster import KMeans; DATA = numpy.arange(20000.0).reshape(5000, 4)",
        "M = KMeans(2, n_init=1).fit(DATA)",
        "KMeans(2, n_init=1).fit(DATA).cluster_centers_.shape == (2, 4)",
        "threads of a native library (",
        needs="sklearn",
    ),
    "numpy": Kind(
        "import numpy; A = numpy.ones((600, 600))",
        "B = A @ A",
        "(A @ A)[0, 0] == B[0, 0] == 600",
        "",
        needs="numpy",
    ),
    "scikit-learn": Kind(
        "import numpy; from sklearn.linear_model import LinearRegression as R",
        "M = R().fit(numpy.arange(600).reshape(300, 2), numpy.arange(300))",
        "round(float(M.predict([[598, 599]])[0])) == 299",
        "",
        needs="sklearn",
    ),
    "pandas and pyarrow": Kind(
        "import pandas, pyarrow as pa, pyarrow.compute as pc",
        "F = pandas.DataFrame({'x': range(1000)})",
        "pc.sum(pa.array(F.x)).as_py() == F.x.sum() and pa.Table.from_pandas(F).num_rows == 1000",
        "",
        needs="pandas pyarrow",
    ),
}  # fmt: skip


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def elsewhere() -> Iterator[str]:
    """A server of which the variable `ELSEWHERE` is to hold the address: statements connect to it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()

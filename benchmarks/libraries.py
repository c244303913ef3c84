"""Which libraries of web projects keep a warm restart from going on behind them, and why.

For each there is an application of two statements: the library is imported, and what most projects make with
it is made, as far as that needs no server, key or account. It is started with `--reload`, and what devserver
says of barriers is read. Then a module behind both is saved, and where the restart goes on is read, too. A
library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import report
from subject import environment

LIMIT = 120.0
"""Seconds that a start, or a restart, may take."""

LIBRARIES: dict[str, dict[str, tuple[str, str]]] = {
    "Databases": {
        "psycopg": ("import psycopg", ""),
        "psycopg2-binary": ("import psycopg2", ""),
        "asyncpg": ("import asyncpg", ""),
        "PyMySQL": ("import pymysql", ""),
        "aiomysql": ("import aiomysql", ""),
        "mysql-connector-python": ("import mysql.connector", ""),
        "oracledb": ("import oracledb", ""),
        "duckdb": ("import duckdb", "made = duckdb.connect(':memory:')"),
        "aiosqlite": ("import aiosqlite", ""),
        "SQLAlchemy": ("import sqlalchemy", "made = sqlalchemy.create_engine('sqlite:///a.db')"),
        "peewee": ("import peewee", "made = peewee.SqliteDatabase('a.db')"),
        "tortoise-orm": ("import tortoise", ""),
        "pony": ("import pony.orm", "made = pony.orm.Database()"),
        "pymongo": ("import pymongo", "made = pymongo.MongoClient(connect=False)"),
        "motor": ("import motor.motor_asyncio", "made = motor.motor_asyncio.AsyncIOMotorClient()"),
        "redis": ("import redis", "made = redis.Redis()"),
        "elasticsearch": ("import elasticsearch", "made = elasticsearch.Elasticsearch('http://127.0.0.1:1')"),
        "opensearch-py": ("import opensearchpy", "made = opensearchpy.OpenSearch('http://127.0.0.1:1')"),
        "clickhouse-connect": ("import clickhouse_connect", ""),
        "neo4j": ("import neo4j", "made = neo4j.GraphDatabase.driver('bolt://127.0.0.1:1')"),
    },
    "Queues and tasks": {
        "celery": ("import celery", "made = celery.Celery('shop', broker='redis://127.0.0.1:1')"),
        "rq": ("import redis, rq", "made = rq.Queue(connection=redis.Redis())"),
        "dramatiq": (
            "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker",
            "made = dramatiq.set_broker(StubBroker())",
        ),
        "huey": ("import huey", "made = huey.MemoryHuey('shop')"),
        "apscheduler": (
            "from apscheduler.schedulers.background import BackgroundScheduler",
            "made = BackgroundScheduler()\nmade.start()",
        ),
        "arq": ("import arq", ""),
        "pika": ("import pika", ""),
        "aio-pika": ("import aio_pika", ""),
        "kafka-python": ("import kafka", ""),
        "confluent-kafka": (
            "import confluent_kafka",
            "made = confluent_kafka.Producer({'bootstrap.servers': '127.0.0.1:1'})",
        ),
        "nats-py": ("import nats", ""),
        "paho-mqtt": (
            "import paho.mqtt.client",
            "made = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)",
        ),
        "pyzmq": ("import zmq", "made = zmq.Context()"),
    },
    "Clients of the web": {
        "requests": ("import requests", "made = requests.Session()"),
        "httpx": ("import httpx", "made = httpx.AsyncClient()"),
        "aiohttp": ("import aiohttp", ""),
        "urllib3": ("import urllib3", "made = urllib3.PoolManager()"),
        "websockets": ("import websockets", ""),
        "grpcio": ("import grpc", "made = grpc.insecure_channel('127.0.0.1:1')"),
        "playwright": ("import playwright.sync_api", ""),
        "selenium": ("import selenium.webdriver", ""),
    },
    "Services": {
        "boto3": (
            "import boto3",
            "made = boto3.client('s3', 'eu-west-1', aws_access_key_id='a', aws_secret_access_key='b')",
        ),
        "google-cloud-storage": (
            "from google.cloud import storage",
            "made = storage.Client.create_anonymous_client()",
        ),
        "azure-storage-blob": (
            "from azure.storage.blob import BlobServiceClient",
            "made = BlobServiceClient('https://shop.blob.core.windows.net')",
        ),
        "stripe": ("import stripe", "made = stripe.StripeClient('sk_test_a')"),
        "twilio": ("import twilio.rest", "made = twilio.rest.Client('a', 'b')"),
        "openai": ("import openai", "made = openai.AsyncOpenAI(api_key='a')"),
        "anthropic": ("import anthropic", "made = anthropic.AsyncAnthropic(api_key='a')"),
        "langchain-core": ("import langchain_core.prompts, langchain_core.runnables", ""),
        "launchdarkly-server-sdk": ("import ldclient", ""),
        "posthog": ("import posthog", "made = posthog.Posthog('a', host='http://127.0.0.1:1')"),
    },
    "Logs, traces and metrics": {
        "sentry-sdk": ("import sentry_sdk", "made = sentry_sdk.init('http://a@127.0.0.1:1/1')"),
        "opentelemetry-sdk": (
            "from opentelemetry.sdk.trace import TracerProvider\n"
            "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter",
            "made = TracerProvider()\nmade.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))",
        ),
        "opentelemetry-exporter-otlp": (
            "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter",
            "made = OTLPSpanExporter()",
        ),
        "ddtrace": ("import ddtrace", "import ddtrace.auto"),
        "newrelic": ("import newrelic.agent", "made = newrelic.agent.initialize()"),
        "elastic-apm": (
            "import elasticapm",
            "made = elasticapm.Client(service_name='shop', server_url='http://127.0.0.1:1')",
        ),
        "prometheus_client": (
            "import prometheus_client",
            "made = prometheus_client.Counter('sold', 'things sold')",
        ),
        "structlog": ("import structlog", "made = structlog.get_logger()"),
        "loguru": ("from loguru import logger", "made = logger.add('shop.log', enqueue=True)"),
    },
    "Numbers, pictures and models": {
        "numpy": ("import numpy", "made = numpy.ones((500, 500)) @ numpy.ones((500, 500))"),
        "pandas": ("import pandas", "made = pandas.DataFrame({'a': range(9)}).describe()"),
        "polars": ("import polars", "made = polars.DataFrame({'a': range(9)}).describe()"),
        "pyarrow": ("import pyarrow", "made = pyarrow.table({'a': [1, 2]})"),
        "scipy": ("import scipy.optimize", "made = scipy.optimize.minimize(lambda x: x * x, 1)"),
        "scikit-learn": (
            "import sklearn.linear_model",
            "made = sklearn.linear_model.LinearRegression().fit([[1], [2]], [1, 2])",
        ),
        "xgboost": ("import xgboost", "made = xgboost.DMatrix([[1.0]], [1.0])"),
        "lightgbm": ("import lightgbm", ""),
        "onnxruntime": ("import onnxruntime", ""),
        "numba": ("import numba", "made = numba.njit(lambda x: x + 1)(1)"),
        "dask": ("import dask.bag", "made = dask.bag.from_sequence([1])"),
        "transformers": ("import transformers", "transformers.PreTrainedTokenizerFast"),
        "tokenizers": ("import tokenizers", "made = tokenizers.Tokenizer(tokenizers.models.BPE())"),
        "huggingface_hub": ("import huggingface_hub", "made = huggingface_hub.HfApi()"),
        "matplotlib": ("import matplotlib.pyplot", "made = matplotlib.pyplot.figure()"),
        "opencv-python-headless": ("import cv2, numpy", "made = cv2.blur(numpy.ones((999, 999)), (5, 5))"),
        "pillow": ("import PIL.Image", "made = PIL.Image.new('RGB', (9, 9))"),
    },
    "Others": {
        "pydantic": ("import pydantic", ""),
        "cryptography": (
            "from cryptography.fernet import Fernet",
            "made = Fernet(Fernet.generate_key())",
        ),
        "lxml": ("import lxml.etree", "made = lxml.etree.XML('<a/>')"),
        "gevent": ("import gevent", ""),
        "eventlet": ("import eventlet", ""),
    },
}
"""Question → distribution → how it is imported, and what is made with it."""

LEAF = "WORD = {word!r}\n"

REST = """
import leaf

def app(environ, start_response):
    start_response("200 OK", [])
    return [leaf.WORD.encode()]
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("only", nargs="*", metavar="LIBRARY", help="part of its name; without: all")
    options.add_argument("--beside", type=int, default=os.cpu_count(), help="how many are tried side by side")
    args = options.parse_args()
    print(report.setting())
    with ThreadPoolExecutor(args.beside) as pool:
        for kind, libraries in LIBRARIES.items():
            names = [
                name
                for name in libraries
                if _version(name) and (not args.only or any(part in name for part in args.only))
            ]
            rows = pool.map(lambda name: _row(name, *libraries[name]), names)  # noqa: B023
            if names:
                print(report.table([kind, "imported", "made with it", "a save behind it"], list(rows)))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _row(name: str, imported: str, made: str) -> tuple[str, str, str, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            told, goes_on = _tried(Path(folder), f"{imported}\n", f"{made}\n" if made else "")
        except (TimeoutError, RuntimeError) as error:
            return f"{name} {_version(name)}", str(error).splitlines()[0], "", ""
    code = "; ".join(f"`{line.removeprefix('made = ')}`" for line in made.splitlines())
    second = f"{code}: {told[1] or ('as before' if told[0] else 'none')}" if made else ""
    return f"{name} {_version(name)}", told[0] or "none", second, goes_on


def _tried(folder: Path, imported: str, made: str) -> tuple[tuple[str, str], str]:
    """Barriers of the two statements, and where a restart goes on. Raises: TimeoutError, RuntimeError."""
    (folder / "app.py").write_text(imported + made + REST)
    (folder / "leaf.py").write_text(LEAF.format(word="one"))
    events = folder / "events"
    command = [
        sys.executable, "-m", "devserver", "app", "--reload", "--port", "0", "--events", str(events),
        "--checkpoints", "99", "--checkpoint-memory", "99",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        # A checkpoint, and so a thorough look, before each statement: the very statement is named.
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**environment(), "_DEVSERVER_CHECKPOINTS": "each"},
        )
        try:
            seen = list(_until(events, process, "serving", 1))
            (folder / "leaf.py").write_text(LEAF.format(word="another"))
            seen = list(_until(events, process, "serving", 2))
        finally:
            process.terminate()
            process.wait()
    lines = imported.count("\n"), imported.count("\n") + made.count("\n")
    told = ["", ""]
    for event in seen:
        if event["event"] == "barrier" and event.get("line"):
            which = 0 if event["line"] <= lines[0] else 1
            told[which] = told[which] or event["reason"]
    restart = next(event for event in seen if event["event"] == "restart")
    line = restart.get("line") or 0
    behind = line > lines[1] or os.path.basename(restart.get("path") or "") == "leaf.py"
    if restart["kind"] == "cold" or not line:
        where = "everything again"
    else:
        where = "nothing of it again" if behind else f"again from line {line}"
    return (told[0], told[1]), where


def _until(events: Path, process: subprocess.Popen[bytes], name: str, count: int) -> Iterator[dict[str, Any]]:
    """All events, once there are `count` of a name."""
    end = time.monotonic() + LIMIT
    while True:
        text = events.read_text() if events.exists() else ""
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        failed = [event for event in found if event["event"] == "failed"]
        if failed:
            raise RuntimeError(failed[0]["error"])
        if sum(event["event"] == name for event in found) >= count:
            yield from found
            return
        if time.monotonic() > end or process.poll() is not None:
            raise TimeoutError(f"no event {name}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()

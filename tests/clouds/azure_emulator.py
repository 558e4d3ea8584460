"""Azurite, an emulator of Azure Blob Storage, with an account of the tests."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import time

ACCOUNT = "laboratory"
KEY = base64.b64encode(b"the key of the tests, which opens nothing").decode()
OTHER_KEY = base64.b64encode(b"some other key, which opens nothing too").decode()

_STARTING = 30.0
"""Seconds that it may take to start or to stop."""


def connection(proxy, key):
    """What Azure calls a connection string."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={proxy.url}/{ACCOUNT};"


@contextlib.contextmanager
def azurite(program, folder):
    """Run it for the time of a block; gives the port where it listens."""
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", "0"]
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen([program, *options], stdout=output, stderr=output, cwd=folder, env=environment)
    try:
        yield _port(server, log)
    finally:
        server.terminate()
        server.wait(_STARTING)


def _port(server, log):
    end = time.monotonic() + _STARTING
    while time.monotonic() < end and server.poll() is None:
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    msg = f"Azurite did not start: {log.read_text()}"
    raise RuntimeError(msg)

"""Processes that are killed at any moment, forked from one that has loaded and compiled everything already."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

PARENT = """
import json, os, sys, traceback
import stemstore, stemstore.cli.main
import stemstore.store.layout as layout, stemstore.store.writer as room
from stemstore.conversion import parts, run
from stemstore.maintenance import copy, edit, pack
layout.MAX_RAW_BYTES = int(sys.argv[1])
for count in (False, True):
    limits = {"background_threshold": 40.0, "xray_threshold": 500.0} if count else {}
    stemstore.convert(sys.argv[2], f"{sys.argv[3]}-{count}.zarr", count=count, workers=1, **limits)
put, enter = room._put_shard, room.write_entry

def put_shard(storage, key, parts):
    os.write(log, f"shard {key}\\n".encode())
    return put(storage, key, parts)

def write_entry(storage, entry, *arguments):
    enter(storage, entry, *arguments)
    os.write(log, f"entry {entry.partition}\\n".encode())

room._put_shard, room.write_entry = put_shard, write_entry
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 1
        try:
            exec(job["code"], {"job": job, "stemstore": stemstore})
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        os._exit(code or 0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Processes:
    """Runs pieces of Python in processes of their own, and ends them at random moments.

    Attributes
    ----------
    lines
        What the process that ran last has told: shards as it began to write them, entries of the journal.
    """

    def __init__(self, raw, folder, limit, seed):
        self._log, self._random, self.lines = folder / "log", random.Random(seed), []  # noqa: S311, RUF100  # moments
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(limit), str(raw), str(folder / "first")], **pipes
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait()

    def run(self, code, *, within=None, number=signal.SIGKILL, **job):
        """Run code, and send a signal at a random moment of so many seconds; gives exit code and seconds."""
        self._log.unlink(missing_ok=True)
        self._parent.stdin.write(json.dumps({**job, "code": code, "log": str(self._log)}) + "\n")
        self._parent.stdin.flush()
        pid, began = int(self._parent.stdout.readline()), time.monotonic()
        if within is not None:
            time.sleep(self._random.uniform(0, within))
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(pid, number)
        status = int(self._parent.stdout.readline())
        self.lines = self._log.read_text().splitlines() if self._log.exists() else []
        return status, time.monotonic() - began

    def told(self, what):
        """Give what the last process told of shards or entries."""
        return [line.split()[1] for line in self.lines if line.startswith(f"{what} ")]

    @property
    def text(self):
        """All that the last process printed."""
        return "\n".join(line for line in self.lines if not line.startswith(("shard ", "entry ")))

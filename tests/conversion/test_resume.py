"""Conversions that are interrupted go on where they were, and end as if nothing had happened."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.conversion import steps
from stemstore.errors import ConversionIncompleteError, DestinationExistsError, InputError, NotFoundError, StorageError
from stemstore.store.verify import verify_store

DENSE = {"count": False, "profile": "raw", "max_memory": "1MiB", "workers": 2}
COUNTED = {"count": True, "profile": "fast", "workers": 2}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A scan of read noise and electrons that takes 9 shards of frames or 5 of events."""
    path = tmp_path_factory.mktemp("raw") / "scan.npy"
    frames = np.random.default_rng(3).normal(20.5, 1.8, (24, 24, 64, 64))
    frames[..., 20:44:6, 20:44:6] += 90 * (np.random.default_rng(4).random((24, 24, 4, 4)) < 0.4)
    np.save(path, np.rint(frames).astype(np.uint16))
    return path


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    """Make shards of events as small as those of frames."""
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", 2**20)


def content(store):
    """Everything in a store but what tells one conversion from another: identity and times."""
    found = {}
    for path in sorted(Path(store).rglob("*")):
        if path.is_file():
            found[path.relative_to(store).as_posix()] = path.read_bytes()
    commit = json.loads(found.pop("stemstore.commit.json"))
    root = json.loads(found.pop("zarr.json"))
    document = root["attributes"]["stemstore"]
    document.pop("uuid")
    for entry in document["history"]:
        entry["time"] = entry["environment"] = None
    return found, root, {name: commit[name] for name in ("n_shards", "n_bytes", "shards_digest")}


@pytest.fixture(scope="module", params=["dense", "counted"])
def undisturbed(request, raw, tmp_path_factory):
    """Options of a conversion, and the store that it makes when nothing happens."""
    options = DENSE if request.param == "dense" else COUNTED
    target = tmp_path_factory.mktemp("whole") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stemstore.store.layout.MAX_RAW_BYTES", 2**20)
        stemstore.convert(raw, target, **options)
    return options, content(target)


def stop_after(monkeypatch, n, error):
    """Let the n-th journal entry be the last one before an error."""
    import stemstore.store.writer as room

    entry, written = room.write_entry, []

    def write_entry(*args, **options):
        if len(written) >= n:
            raise error
        written.append(args[1].partition)
        return entry(*args, **options)

    monkeypatch.setattr(room, "write_entry", write_entry)
    return written


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), StorageError("no space"), MemoryError(), OSError(errno.EIO, "x")]
)
def test_what_was_finished_is_kept_and_not_written_again(tmp_path, raw, undisturbed, monkeypatch, error):
    """After an interruption the same call with resume=True writes only the rest; the store is the same to the byte."""
    options, expected = undisturbed
    with monkeypatch.context() as patch:
        first = stop_after(patch, 2, error)
        with pytest.raises(type(error)) as caught:
            stemstore.convert(raw, tmp_path / "a.zarr", **options)
    assert any("are kept; go on with resume=True" in note for note in caught.value.__notes__)
    with pytest.raises(ConversionIncompleteError, match="did not finish"):
        stemstore.open(tmp_path / "a.zarr")
    with monkeypatch.context() as patch:
        second = stop_after(patch, 99, error)
        stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **options)
    assert len(first) == 2
    assert not set(first) & set(second)
    assert content(tmp_path / "a.zarr") == expected
    assert verify_store(tmp_path / "a.zarr") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr"]


def test_a_second_conversion_to_the_same_place_is_refused(tmp_path, raw, monkeypatch):
    """Without resume=True nothing that was finished is lost, and the message says how to go on."""
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(raw, tmp_path / "a.zarr", **DENSE)
    for overwrite in (False, True):
        match = r"go on with resume=True \(--resume\), remove what it wrote \(stemstore repair"
        with pytest.raises(DestinationExistsError, match=match):
            stemstore.convert(raw, tmp_path / "a.zarr", overwrite=overwrite, **DENSE)
    stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **DENSE)


def test_resume_where_nothing_was_begun_begins(tmp_path, raw, undisturbed):
    """A script may always say resume=True; a finished store is not touched by it."""
    options, expected = undisturbed
    stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **options)
    assert content(tmp_path / "a.zarr") == expected
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"profile": "fast"}, "another layout"),
        ({"scan_step": 0.5}, "another axes"),
        ({"max_memory": "64MiB"}, "another layout"),
    ],
)
def test_other_options_do_not_go_on(tmp_path, raw, monkeypatch, change, match):
    """Half of one store and half of another is refused; the work stays for the right call."""
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(raw, tmp_path / "a.zarr", **DENSE)
    with pytest.raises(InputError, match=match):
        stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **DENSE | change)
    stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **DENSE)


def test_another_source_does_not_go_on(tmp_path, raw, monkeypatch):
    """A file that was changed in between is another source."""
    copy = tmp_path / "scan.npy"
    copy.write_bytes(raw.read_bytes())
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(copy, tmp_path / "a.zarr", **DENSE)
    os.utime(copy, (1, 1))
    with pytest.raises(InputError, match="another source"):
        stemstore.convert(copy, tmp_path / "a.zarr", resume=True, **DENSE)


def test_a_damaged_shard_is_written_again(tmp_path, raw, undisturbed, monkeypatch):
    """What the journal vouches for is looked at: a bit that flipped in between does not get into the store."""
    options, expected = undisturbed
    with monkeypatch.context() as patch:
        written = stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(raw, tmp_path / "a.zarr", **options)
    assert len(written) == 3
    (part,) = tmp_path.glob("a.zarr.part-*")
    victim = next(path for path in part.rglob("c/*") if path.is_dir())
    shard = next(path for path in victim.rglob("*") if path.is_file())
    body = bytearray(shard.read_bytes())
    body[9] ^= 1
    shard.write_bytes(bytes(body))
    stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **options)
    assert content(tmp_path / "a.zarr") == expected


def test_columns_of_events_go_on(tmp_path, raw, monkeypatch):
    """What else is stored of every electron is no other conversion."""
    options = COUNTED | {"event_columns": "energy"}
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(raw, tmp_path / "a.zarr", **options)
    stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **options)
    assert verify_store(tmp_path / "a.zarr") == []


def test_errors_of_the_data_leave_nothing(tmp_path, raw, monkeypatch):
    """What no repetition can help is removed, unless it belongs to an earlier call."""
    with monkeypatch.context() as patch:
        stop_after(patch, 2, InputError("wrong"))
        with pytest.raises(InputError, match="wrong"):
            stemstore.convert(raw, tmp_path / "a.zarr", **DENSE)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(raw, tmp_path / "a.zarr", **DENSE)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, InputError("wrong"))
        with pytest.raises(InputError, match="wrong"):
            stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **DENSE)
    assert len(list(tmp_path.glob("a.zarr.part-*"))) == 1


def test_what_others_have_planned_is_not_removed(tmp_path, raw, monkeypatch):
    """A plan of which nothing is written yet survives the failure of somebody who goes on with it."""
    stemstore.plan_conversion(raw, tmp_path / "a.zarr", **DENSE)
    with monkeypatch.context() as patch:
        stop_after(patch, 0, InputError("wrong"))
        with pytest.raises(InputError, match="wrong"):
            stemstore.convert(raw, tmp_path / "a.zarr", resume=True, **DENSE)
    assert stemstore.convert_partition(tmp_path / "a.zarr", 0) == [0]


KILLED = """
import sys, json, stemstore
import stemstore.store.layout as layout
layout.MAX_RAW_BYTES = 2**20
print('go', flush=True)
stemstore.convert(sys.argv[1], sys.argv[2], resume=True, **json.loads(sys.argv[3]))
"""


def test_killed_conversions_go_on(tmp_path, raw, undisturbed):
    """SIGKILL at random moments, again and again: in the end the store is the undisturbed one."""
    options, expected = undisturbed
    target = tmp_path / "a.zarr"
    rng = random.Random(7)  # noqa: S311, RUF100  # moments, no secrets
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(raw), str(target), json.dumps(options | {"workers": 1})]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            before = len(list(tmp_path.glob("a.zarr.part-*/.journal/*.npz")))
            while len(list(tmp_path.glob("a.zarr.part-*/.journal/*.npz"))) <= before and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        if target.exists():
            break
        with pytest.raises(ConversionIncompleteError, match="did not finish"):
            stemstore.open(target)
    if not target.exists():
        stemstore.convert(raw, target, resume=True, **options)
    assert content(target) == expected


def test_jobs_write_what_one_process_writes(tmp_path, raw, undisturbed):
    """Plan, three jobs in any order and twice, finalise: the store is the undisturbed one."""
    options, expected = undisturbed
    plan = stemstore.plan_conversion(raw, tmp_path / "a.zarr", tasks=3, **options)
    assert plan.n_tasks == 3
    with pytest.raises(ConversionIncompleteError, match=f"{plan.n_partitions} of {plan.n_partitions} partitions"):
        stemstore.finalise_conversion(tmp_path / "a.zarr")
    written = [stemstore.convert_partition(tmp_path / "a.zarr", task) for task in (2, 0, 2, 1)]
    assert written[2] == []
    assert sorted(index for part in written for index in part) == list(range(plan.n_partitions))
    report = stemstore.finalise_conversion(tmp_path / "a.zarr")
    assert (report.profile, report.shape) == (plan.profile, plan.shape)
    assert content(tmp_path / "a.zarr") == expected


def test_a_job_reads_no_shards_of_other_jobs(raw, tmp_path, monkeypatch):
    """A job looks whether its own shards are there; that of others, it would read the whole store once per job."""
    plan = stemstore.plan_conversion(raw, tmp_path / "a.zarr", **DENSE)
    for task in range(plan.n_tasks - 1):
        stemstore.convert_partition(tmp_path / "a.zarr", task)
    read = []
    monkeypatch.setattr("stemstore.store.journal.object_checksum", read.append)
    assert stemstore.convert_partition(tmp_path / "a.zarr", plan.n_tasks - 1) == [plan.n_tasks - 1]
    assert read == []


def test_what_was_given_as_arrays_reaches_the_jobs(tmp_path, raw):
    """A dark in memory is kept beside the plan."""
    dark = np.full((64, 64), 3.0)
    options = {"dark": dark, "background_threshold": 40.0, "xray_threshold": 500.0, **COUNTED}
    stemstore.convert(raw, tmp_path / "a.zarr", **options)
    plan = stemstore.plan_conversion(raw, tmp_path / "b.zarr", **options)
    for task in range(plan.n_tasks):
        stemstore.convert_partition(tmp_path / "b.zarr", task)
    stemstore.finalise_conversion(tmp_path / "b.zarr")
    assert content(tmp_path / "a.zarr") == content(tmp_path / "b.zarr")


def test_jobs_that_were_not_planned(tmp_path, raw):
    """A destination without a plan, a job too many, and tasks that are no number are typed errors."""
    with pytest.raises(NotFoundError, match="no conversion to"):
        stemstore.convert_partition(tmp_path / "a.zarr", 0)
    with pytest.raises(NotFoundError, match="no conversion to"):
        stemstore.finalise_conversion(tmp_path / "a.zarr")
    for tasks in (0, True, 1.5):
        with pytest.raises(InputError, match="tasks="):
            stemstore.plan_conversion(raw, tmp_path / "a.zarr", tasks=tasks, **DENSE)
    plan = stemstore.plan_conversion(raw, tmp_path / "a.zarr", tasks=2, **DENSE)
    with pytest.raises(InputError, match="as jobs 0 to 1"):
        stemstore.convert_partition(tmp_path / "a.zarr", plan.n_tasks)
    with pytest.raises(InputError, match="cannot be kept for other processes"):
        stemstore.plan_conversion(raw, tmp_path / "b.zarr", rule=object(), **DENSE)


def test_partitions_are_divided_evenly():
    """Every partition belongs to one job, no job is empty, and sizes differ by one at most."""
    from stemstore.conversion.parts import divide

    for n in (1, 2, 7, 12):
        for tasks in (None, 1, 3, 12, 40):
            jobs = divide(n, tasks)
            assert [index for job in jobs for index in job] == list(range(n))
            assert max(map(len, jobs)) - min(map(len, jobs)) <= 1
            assert min(map(len, jobs)) >= 1


def test_steps_know_what_is_unfinished(tmp_path, raw):
    """A place is unfinished from its plan to its name."""
    assert not steps.unfinished(str(tmp_path / "a.zarr"))
    stemstore.plan_conversion(raw, tmp_path / "a.zarr", tasks=1, **DENSE)
    assert steps.unfinished(str(tmp_path / "a.zarr"))
    stemstore.convert_partition(tmp_path / "a.zarr", 0)
    stemstore.finalise_conversion(tmp_path / "a.zarr")
    assert not steps.unfinished(str(tmp_path / "a.zarr"))


def test_a_cluster_writes_what_one_process_writes(tmp_path, raw, undisturbed):
    """Partitions as tasks of two workers; a conversion that was begun goes on."""
    distributed = pytest.importorskip("distributed")
    options, expected = undisturbed
    alone = not options["count"]  # other processes do not know that shards of events are small here
    with (
        stemstore.local_cluster(2, dashboard_address=":0", processes=alone) as cluster,
        distributed.Client(cluster) as client,
    ):
        stemstore.convert_on_cluster(client, raw, tmp_path / "a.zarr", **options)
        plan = stemstore.plan_conversion(raw, tmp_path / "b.zarr", **options)
        stemstore.convert_partition(tmp_path / "b.zarr", plan.n_tasks - 1)
        stemstore.convert_on_cluster(client, raw, tmp_path / "b.zarr", resume=True, **options)
        stemstore.plan_conversion(raw, tmp_path / "c.zarr", tasks=2, **options)
        stemstore.convert_on_cluster(client, raw, tmp_path / "c.zarr", resume=True, **options)
    assert content(tmp_path / "a.zarr") == content(tmp_path / "b.zarr") == content(tmp_path / "c.zarr") == expected

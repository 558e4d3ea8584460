"""A device that is full, or fails, at every single write: a typed error, no half store, and nothing done twice."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
from sweeps import LIMIT, Device, Written, content, convert, failure_of, opens, write_scan

from stemstore.cli.exit import BUDGET, exit_code
from stemstore.store.journal import PLAN
from stemstore.store.urls import open_storage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="calls of the system are those of Unix")
SWEEP = [
    pytest.param(311, id="some"),
    pytest.param(2, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]
"""Every second call: those of even number fail with one error, those of odd number with the other."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(params=["dense", "counted"])
def kind(request):
    """Give the kind of a store."""
    return request.param


@pytest.fixture
def expected(raw, tmp_path, kind):
    """Give the content of a store that nothing disturbed."""
    convert(raw, tmp_path / "undisturbed.zarr", kind)
    return content(open_storage(tmp_path / "undisturbed.zarr"))


@pytest.fixture
def folder(tmp_path):
    """Give an empty folder."""
    (tmp_path / "device").mkdir()
    return tmp_path / "device"


def finish(raw, place, kind, expected):
    """Go on where a place is no store yet, or its journal was not removed; nothing but the store is left."""
    if not opens(place) or (place / PLAN).exists() or list(place.parent.glob(f"{place.name}?*")):
        convert(raw, place, kind, resume=True)
    assert content(open_storage(place)) == expected
    assert not list(place.parent.glob(f"{place.name}?*"))


@pytest.mark.parametrize("step", SWEEP)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failures_at_every_call(raw, folder, monkeypatch, expected, kind, number, step):
    """Full from any call of the system on, or failing in one: no store or a whole one, which resume=True finishes."""
    device, written = Device(monkeypatch, folder), Written(monkeypatch)
    convert(raw, folder / "count.zarr", kind)
    n_calls, failed = len(device.calls), 0
    assert n_calls > 400
    for at in range(number % step, n_calls, step):
        place = folder / f"{at}.zarr"
        written.check(0)
        device.fail(at, number, lasting=number == errno.ENOSPC)
        error = failure_of(convert, raw, place, kind)
        device.recover()
        if error is not None:
            failed += 1
            assert os.strerror(number) in str(error)
            assert "run it again" in str(error)
            assert exit_code(error) == (BUDGET if number == errno.ENOSPC else 1)
        finish(raw, place, kind, expected)
        written.check(1)
        shutil.rmtree(place)
    assert failed > n_calls // step // 2


@pytest.mark.parametrize("step", SWEEP)
def test_failures_while_a_store_is_replaced(raw, folder, monkeypatch, expected, kind, step):
    """With overwrite=True there is the old store or the new one, each whole, and of the old one nothing stays."""
    place, old = folder / "a.zarr", folder.parent / "undisturbed.zarr"
    device, written = Device(monkeypatch, folder), Written(monkeypatch)
    shutil.copytree(old, place)
    convert(raw, place, kind, overwrite=True)
    first = device.calls.index("rename") - 4
    for at in range(first, len(device.calls), max(1, step // 6)):
        shutil.rmtree(place)
        shutil.copytree(old, place)
        written.check(0)
        device.fail(at, errno.EIO)
        failure_of(convert, raw, place, kind, overwrite=True)
        device.recover()
        assert opens(place)
        finish(raw, place, kind, expected)
        written.check(1)


@pytest.fixture
def small_device(folder):
    """Mount a device of any size, where that is allowed; gives a function that sets its size in bytes."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root may mount a device")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine does not mount devices")
    yield lambda n_bytes: subprocess.run(["mount", "-o", f"remount,size={n_bytes}", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("step", [pytest.param(90, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_devices_of_every_size(raw, folder, small_device, monkeypatch, expected, kind, step):
    """From too small to just enough, page by page: space is made, and resume=True finishes the store."""
    written = Written(monkeypatch)
    pages, outcomes = 2, set()
    while True:
        small_device(pages * 4096)
        place = folder / f"{pages}.zarr"
        error = failure_of(convert, raw, place, kind)
        outcomes.add("whole" if error is None else "kept" if list(folder.glob(f"{place.name}.part-*")) else "nothing")
        assert error is None or ("No space left" in str(error) and "free there" in str(error))
        assert opens(place) == (error is None)
        small_device(64 * 2**20)
        finish(raw, place, kind, expected)
        written.check(1)
        shutil.rmtree(place)
        if error is None:
            break
        pages += step
    assert outcomes == {"nothing", "kept", "whole"}

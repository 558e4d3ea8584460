"""A store is compared with its source frame by frame, as its history says that it was made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.conversion.compare import Difference
from stemstore.conversion.rechunk import rechunk_store
from stemstore.conversion.verify import verify
from stemstore.errors import ChecksumError, InputError, NotFoundError
from stemstore.maintenance.edit import edit_store

LIMITS = {"background_threshold": 40.0, "xray_threshold": 4000.0}


@pytest.fixture(params=["dense", "counted"])
def made(request, raw, tmp_path):
    """Convert the frames to a store of either kind."""
    options = LIMITS if request.param == "counted" else {}
    stemstore.convert(raw, tmp_path / "a.zarr", count=request.param == "counted", **options)
    return tmp_path / "a.zarr"


def change(raw, where, value):
    """Change pixels of the raw file."""
    frames = np.load(raw)
    frames[where] = value
    np.save(raw, frames)


def test_a_store_is_what_its_source_gives(made, raw):
    """The source is found by the history, or named."""
    for source in (None, raw):
        found = verify(made, source)
        assert (found.equal, found.n_different, found.first, found.notes) == (True, 0, None, [])
        assert (found.n_frames, found.source) == (42, [str(raw)])
    assert found.counted == (stemstore.open(made).intensity.dtype == np.uint8)


def test_estimated_thresholds_are_found_again(raw, tmp_path):
    """Frames are sampled by a fixed rule, so that the same limits come out; a change of metadata is no obstacle."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, scan_step="0.5 nm", threshold="global")
    edit_store(tmp_path / "a.zarr", {"acquisition.sample": "gold"})
    found = verify(tmp_path / "a.zarr")
    assert (found.equal, found.counted, found.notes) == (True, True, [])


def test_differences_are_counted_and_the_first_one_is_told(made, raw):
    """Frames, not pixels, are counted; the first of the scan comes with its values."""
    before = int(np.load(raw)[5, 2, 7, 3])
    change(raw, np.s_[5, 2, 7, 3], 900)
    change(raw, np.s_[6, 1, 0:2, 0:2], 901)
    found = verify(made)
    assert (found.equal, found.n_different) == (False, 2)
    assert (found.first.what, found.first.position, found.first.pixel) == ("pixel", (5, 2), (7, 3))
    if found.counted:
        assert (found.first.stored, found.first.expected) == (0, 1)
    else:
        assert (found.first.stored, found.first.expected) == (before, 900)
    assert any("another size or time" in text for text in found.notes)
    assert str(found.first).startswith("pixel at position (5, 2), pixel (7, 3): the store holds ")


def test_threads_find_the_same(made, raw):
    """The first difference does not depend on the number of threads."""
    for row in (6, 3, 4):
        change(raw, np.s_[row, 0, 1, 1], 900)
    assert {verify(made, workers=n).first.position for n in (1, 2, 4)} == {(3, 0)}


def test_the_values_of_events(raw, tmp_path):
    """Columns of events are compared as well."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, event_columns=["energy"], **LIMITS)
    assert verify(tmp_path / "a.zarr").equal
    frames = np.load(raw)
    where = (2, 3, *(int(n) for n in np.unravel_index(frames[2, 3].argmax(), (20, 18))))
    change(raw, where, int(frames[where]) + 7)
    found = verify(tmp_path / "a.zarr")
    assert (found.n_different, found.first.what, found.first.position) == (1, "energy", where[:2])
    assert found.first.pixel == where[2:]
    assert found.first.expected - found.first.stored == pytest.approx(7, abs=0.01)


def test_frames_that_are_lost(raw, tmp_path, monkeypatch):
    """A frame that is missing in one of the two only is a difference; one missing in both is none."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=False)
    from stemstore.conversion import verify as module

    decide = module.decide

    def lossy(source, options):
        job = decide(source, options)
        state = np.full(42, 2, np.uint8)
        state[[4, 9]] = (0, 1)
        object.__setattr__(job.plan.source, "validity", state)
        return job

    monkeypatch.setattr(module, "decide", lossy)
    found = verify(tmp_path / "a.zarr")
    assert found.n_different == 2
    assert found.first == Difference("state", (0, 4), None, 2, 0)


def test_arrays_have_to_be_given_again(raw, tmp_path):
    """The history holds files by name, and arrays not at all."""
    dark = np.full((20, 18), 3.0)
    np.save(tmp_path / "dark.npy", dark)
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, dark=tmp_path / "dark.npy", **LIMITS)
    assert verify(tmp_path / "a.zarr").equal
    for count in (True, False):
        store = tmp_path / f"{count}.zarr"
        stemstore.convert(raw, store, count=count, dark=dark, **(LIMITS if count else {}))
        with pytest.raises(InputError, match="give dark= again"):
            verify(store)
        assert verify(store, dark=dark).equal
        assert not verify(store, dark=dark + 60).equal


def test_stores_made_of_stores(made, tmp_path):
    """A store that was converted again is compared with the store it was made of."""
    stemstore.convert(made, tmp_path / "b.zarr", profile="small")
    found = verify(tmp_path / "b.zarr")
    assert (found.equal, found.source) == (True, [str(made)])


def test_a_store_stands_for_its_raw_data(made, tmp_path, raw):
    """Against the store that it was laid out anew from, a store is compared as it is; other pixels are found."""
    rechunk_store(made, tmp_path / "tiles.zarr", profile="small")
    assert verify(tmp_path / "tiles.zarr", made).equal
    change(raw, (0, 0, 3, 4), 3000)
    options = LIMITS if verify(made, made).counted else {}
    stemstore.convert(raw, tmp_path / "other.zarr", count=bool(options), **options)
    assert verify(tmp_path / "tiles.zarr", tmp_path / "other.zarr").n_different == 1


@pytest.mark.parametrize(
    "name", ["empad/map4x4.xml", "arina/test_00_master.h5", "merlin_epsic/test_12bit_RAW_1frame.mib"]
)
def test_sources_of_several_files(sample, tmp_path, name):
    """The history names all files; the one that leads to the others, or all of them, are found."""
    stemstore.convert(sample(name), tmp_path / "a.zarr")
    found = verify(tmp_path / "a.zarr")
    assert found.equal
    assert len(found.source) > 1


def test_another_source(made, raw, tmp_path):
    """Another shape or kind is refused; a source that is gone is named."""
    np.save(tmp_path / "small.npy", np.load(raw)[:3])
    with pytest.raises(InputError, match="name the source and the options"):
        verify(made, tmp_path / "small.npy")
    if not verify(made).counted:
        np.save(tmp_path / "wide.npy", np.load(raw).astype(np.uint32))
        with pytest.raises(InputError, match="pixels of type uint32"):
            verify(made, tmp_path / "wide.npy")
    raw.unlink()
    with pytest.raises(NotFoundError, match=r"scan\.npy") as caught:
        verify(made)
    assert "name it as it was given" in caught.value.__notes__[0]


def test_stores_without_a_history(made):
    """Without an entry of a conversion nothing can be repeated."""
    root = made / "zarr.json"
    found = json.loads(root.read_text())
    found["attributes"]["stemstore"]["history"] = []
    root.write_text(json.dumps(found))
    edit_store(made, accept=True)
    with pytest.raises(InputError, match="tells of no conversion"):
        verify(made)


def test_a_damaged_store_is_an_error_and_no_difference(made, tmp_path):
    """Checksums come first."""
    store = Path(shutil.copytree(made, tmp_path / "b.zarr"))
    victim = next(p for p in store.rglob("c/**/*") if p.is_file() and {"intensity", "gap"} & set(p.parts))
    body = bytearray(victim.read_bytes())
    body[50] ^= 1
    victim.write_bytes(bytes(body))
    with pytest.raises(ChecksumError, match="is damaged"):
        verify(store)


def test_progress_is_told(made):
    """Every block advances the progress."""

    class Steps:
        total, done = 0, 0

        def start(self, what, total):
            self.total = total

        def advance(self, steps=1):
            self.done += steps

    steps = Steps()
    verify(made, progress=steps)
    assert steps.done == steps.total >= 1

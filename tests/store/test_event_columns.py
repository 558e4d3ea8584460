"""Columns of events lie beside the gaps, travel through the journal, and are missed when they are damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from stemstore.errors import ChecksumError, ConversionIncompleteError, CorruptDataError, InputError
from stemstore.kernels.event_columns import over_slots
from stemstore.kernels.gaps import encode
from stemstore.store.event_columns import ColumnReader, columns_of
from stemstore.store.layout import counted_layout, dump_layout, load_layout
from stemstore.store.open import open_store
from stemstore.store.verify import verify_store
from stemstore.store.writer import StoreWriter

SHAPE = (4, 5, 300, 300)
COLUMNS = (("energy", "float32"), ("offset_ky", "int8"), ("offset_kx", "int8"))


@pytest.fixture
def events():
    """Events of 20 frames on a detector whose far pixels need escapes: pointers, indices, columns."""
    rng = np.random.default_rng(3)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 40, 20))])
    indices = np.concatenate([np.sort(rng.choice(90000, n, replace=False)) for n in np.diff(indptr)]).astype(np.uint32)
    n = len(indices)
    offsets = rng.integers(-127, 128, (2, n)).astype(np.int8)
    return indptr, indices, {"energy": rng.random(n, np.float32), "offset_ky": offsets[0], "offset_kx": offsets[1]}


@pytest.fixture
def begin(tmp_path, make_document):
    """Begin a store of three blocks a shard whose fuller blocks need a second chunk."""
    layout = counted_layout(SHAPE[:2], SHAPE[2:], 20.0)
    cut = {"frames_per_block": 4, "slots_per_chunk": 64, "blocks_per_shard": 3}
    layout = replace(layout, **cut, columns=COLUMNS)
    return StoreWriter.init(tmp_path / "a.zarr", make_document(SHAPE, counted=True), layout)


def write(writer, events, skip=()):
    """Write the partitions that are not skipped."""
    indptr, indices, columns = events
    for number in range(writer.layout.n_partitions):
        if number in skip:
            continue
        blocks, values = [], []
        for start, stop in writer.layout.blocks(number):
            mine = slice(indptr[start], indptr[stop])
            blocks.append(encode(indptr[start : stop + 1] - indptr[start], indices[mine]))
            values.append({name: over_slots(blocks[-1][0], column[mine]) for name, column in columns.items()})
        writer.write_events(number, blocks, columns=values)


@pytest.fixture
def url(begin, events):
    """Write a finished store."""
    write(begin, events)
    return begin.finalise()


def test_layouts_keep_their_columns():
    """The plan of a conversion tells other processes of the columns."""
    layout = replace(counted_layout((3, 4), (5, 6), 2.0), columns=COLUMNS)
    assert load_layout(dump_layout(layout)) == layout


def test_arrays_are_cut_like_the_gaps(url, events):
    """Zarr reads the columns, slot by slot beside the gaps, and escapes hold 0."""
    group = zarr.open(url)["events"]
    gaps = group["gap"]
    assert gaps.shape[1] == 128
    for name, column in events[2].items():
        array = group[name]
        assert (array.shape, array.chunks, array.shards) == (gaps.shape, gaps.chunks, gaps.shards)
        assert array.dtype == column.dtype
        slots = zarr.open(url)["events/n_slots"][...].reshape(5, 4).sum(1)
        used = np.concatenate([array[block, :n] for block, n in enumerate(slots)])
        event = np.concatenate([gaps[block, :n] for block, n in enumerate(slots)]) != 65535
        assert not event.all()
        np.testing.assert_array_equal(used[event], column)
        assert not used[~event].any()


def test_blocks_come_back(url, events):
    """The reader gives gaps and the columns asked for; nothing else is read."""
    scan = open_store(url)
    assert columns_of(scan) == [name for name, _ in COLUMNS]
    (Path(url) / "events/offset_ky/c/0/0").unlink()
    reader = ColumnReader(scan, ["energy", "offset_kx"])
    found = [reader.block(number) for number in range(5)]
    event = np.concatenate([block.gap != 65535 for block in found])
    for name in ("energy", "offset_kx"):
        column = np.concatenate([block.values[name] for block in found])
        np.testing.assert_array_equal(column[event], events[2][name])


@pytest.mark.parametrize("harm", ["flip", "remove"])
@pytest.mark.parametrize("name", [name for name, _ in COLUMNS])
def test_damage_is_found(url, harm, name):
    """A changed byte or a missing shard of a column is found by reading and by verification, and named."""
    assert verify_store(url) == []
    shard = Path(url) / f"events/{name}/c/1/0"
    body = bytearray(shard.read_bytes())
    body[30] ^= 1
    shard.unlink()
    if harm == "flip":
        shard.write_bytes(bytes(body))
    with pytest.raises(ChecksumError if harm == "flip" else CorruptDataError, match=f"events/{name}/c/1/0"):
        ColumnReader(open_store(url), [name]).block(3)
    assert f"events/{name}/c/1/0" in {problem.key for problem in verify_store(url)}


def test_columns_that_are_not_declared_are_missed(url):
    """A store whose metadata lost an array says so instead of giving fewer columns."""
    scan = open_store(url)
    del scan.head.arrays["events/energy"]
    with pytest.raises(CorruptDataError, match=r"'events/energy' .* missing or is not cut like"):
        ColumnReader(scan, ["energy"])


@pytest.mark.parametrize("harm", ["cut", "remove"])
def test_partitions_without_their_columns_are_repeated(begin, events, harm):
    """A shard of a column that did not become durable counts as not written, like one of gaps."""
    write(begin, events)
    shard = Path(begin.working) / "events/offset_kx/c/1/0"
    body = shard.read_bytes()
    shard.unlink()
    if harm == "cut":
        shard.write_bytes(body[:-1])
    again = StoreWriter.attach(begin.url)
    assert again.finished() == {0}
    with pytest.raises(ConversionIncompleteError, match=r"\(1\)"):
        again.finalise()
    write(again, events, skip=(0,))
    assert verify_store(again.finalise()) == []


def test_unfinished_stores_show_what_there_is(begin, events):
    """Of a killed conversion the finished partitions have their columns."""
    write(begin, events, skip=(1,))
    scan = open_store(begin.working, allow_incomplete=True)
    reader = ColumnReader(scan, ["energy"])
    block = reader.block(1)
    indptr = events[0]
    np.testing.assert_array_equal(
        block.values["energy"][block.gap != 65535], events[2]["energy"][indptr[4] : indptr[8]]
    )
    assert len(reader.block(4).gap) == 0


def test_blocks_without_columns_are_refused(begin, events):
    """Columns have to be those of the layout, of their types, a value per slot."""
    layout = begin.layout
    blocks = [encode(np.zeros(5, np.int64), np.zeros(0, np.uint32)) for _ in layout.blocks(0)]
    empty = {name: np.zeros(0, dtype) for name, dtype in COLUMNS}
    with pytest.raises(InputError, match="partition 0 got event columns"):
        begin.write_events(0, blocks)
    with pytest.raises(InputError, match="for 2 of 3 blocks"):
        begin.write_events(0, blocks, columns=[empty] * 2)
    with pytest.raises(InputError, match="'energy': 'float64'"):
        begin.write_events(0, blocks, columns=[empty | {"energy": np.zeros(0)}] * 3)
    with pytest.raises(InputError, match=r"'energy' of partition 0 has shape \(1,\)"):
        begin.write_events(0, blocks, columns=[empty | {"energy": np.zeros(1, np.float32)}] * 3)

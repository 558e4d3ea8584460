"""HyperSpy files in Zarr 2: folders and zip files, any codec, nothing decoded that is no number."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from encode_emd import some
from encode_hyperspy import AXES, BLOSC, write_folder, write_zip, zspy_members
from evidence import check_array, check_damaged, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    NotFoundError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING
from stemstore.testing import ReaderTests
from stemstore_readers.zspy import Zspy
from stemstore_readers.zspy_chunks import decode
from stemstore_readers.zspy_header import parse_header
from stemstore_readers.zspy_tree import Zip

DATA = "Experiments/__unnamed__/data"


class TestZip(ReaderTests):
    """The shared tests on a zip file with blosc chunks, beside Zarr 3, which RosettaSciIO 0.15 excludes."""

    reader_cls = Zspy
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        members = zspy_members(truth, (2, 3, 5, 4), separator=None)
        return str(write_zip(tmp_path / "a.zspy", members, stale=True)), truth, {}


class TestFolder(ReaderTests):
    """The shared tests on a folder with big-endian chunks that are not compressed."""

    remote = False
    reader_cls = Zspy
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6), ">f4")
        members = zspy_members(truth, (1, 2, 5, 6), compressor=None)
        return str(write_folder(tmp_path / "a.zspy", members)), truth.astype("f4"), {}

    def make_big_file(self, tmp_path):
        members = zspy_members(np.zeros((2, 2, 8, 8), "<u2"), (1, 1, 8, 8), compressor=None)
        header = json.loads(members[f"{DATA}/.zarray"]) | {"shape": [64, 64, 256, 256], "chunks": [64, 64, 256, 256]}
        path = write_folder(tmp_path / "big.zspy", members | {f"{DATA}/.zarray": json.dumps(header).encode()})
        for index, size in enumerate(header["shape"]):
            file = path / f"Experiments/__unnamed__/axis-{index}/.zattrs"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"size": size}))
        chunk = path / DATA / "0/0/0/0"
        chunk.parent.mkdir(parents=True)
        with chunk.open("wb") as file:
            file.truncate(64 * 64 * 256 * 256 * 2)
        return str(path), {}

    def last_file(self, url):
        return Path(url) / DATA / "2/1/0/0"


class TestSeries(ReaderTests):
    """The shared tests on a series that the user lays out, with the detector in front of the scan."""

    reader_cls = Zspy
    truncation = "error"

    def make_file(self, tmp_path):
        stored = some((5, 4, 6), "<i4")
        members = zspy_members(stored, (5, 3, 4), axes=(*AXES[2:], AXES[1]), order="F", separator=".")
        truth = np.ascontiguousarray(stored.transpose(2, 0, 1)).reshape(2, 3, 5, 4)
        return str(write_zip(tmp_path / "a.zspy", members)), truth, {"scan_shape": (2, 3)}


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize(
    "compressor",
    [
        None,
        BLOSC,
        BLOSC | {"cname": "lz4", "shuffle": 2},
        {"id": "zstd", "level": 3},
        {"id": "lz4", "acceleration": 1},
        {"id": "zlib", "level": 1},
        {"id": "gzip", "level": 1},
    ],
)
@pytest.mark.parametrize("separator", [None, ".", "/"])
def test_codecs_and_names_of_chunks(tmp_path, write, compressor, separator):
    """Every compressor in use and every way to name a chunk gives the same frames."""
    truth = some((3, 4, 5, 6))
    members = zspy_members(truth, (2, 2, 3, 6), compressor=compressor, separator=separator)
    np.testing.assert_array_equal(whole(Zspy()(str(write(tmp_path / "a.zspy", members)))), truth)


def test_axes_and_metadata(tmp_path):
    """Axes and optics are read as from HDF5, and all attributes are kept."""
    source = Zspy()(str(write_folder(tmp_path / "a.zspy", zspy_members(some((3, 4, 5, 6)), (3, 4, 5, 6)))))
    assert {axis.name: (axis.unit, axis.step, axis.origin) for axis in source.metadata.axes} == {
        "y": ("nm", 2.0, 200.0),
        "x": ("nm", 1.5, 100.0),
        "ky": ("1/angstrom", 0.01, -0.02),
        "kx": ("1/angstrom", 0.02, -0.06),
    }
    acquisition = source.metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.instrument) == (200.0, "Titan")
    assert source.metadata.warnings == []
    assert source.metadata.vendor["Experiments/__unnamed__/metadata/Signal"] == {"signal_type": "electron_diffraction"}


def test_the_last_of_several_members_counts(tmp_path):
    """A zip file holds every update of an attribute; only the last one is true."""
    path = write_zip(tmp_path / "a.zspy", zspy_members(some((3, 4, 5, 6)), (3, 4, 5, 6)), stale=True)
    with zipfile.ZipFile(path) as file:
        assert file.namelist().count("Experiments/__unnamed__/axis-0/.zattrs") == 2
    assert Zspy()(str(path)).metadata.axes[0].step == 2.0


@pytest.mark.parametrize("fill", [7, None, 0])
def test_chunks_that_are_not_there(tmp_path, fill):
    """A chunk without a file has the fill value everywhere, zero where that is null."""
    truth = some((2, 2, 3, 3))
    members = zspy_members(truth, (1, 1, 3, 3), fill_value=fill)
    del members[f"{DATA}/1/0/0/0"]
    array = whole(Zspy()(str(write_folder(tmp_path / "a.zspy", members))))
    assert (array[1, 0] == (fill or 0)).all()
    np.testing.assert_array_equal(array[0], truth[0])


def test_scan_larger_than_the_data(tmp_path):
    """A stated scan larger than the array ends in missing frames."""
    members = zspy_members(some((2, 3, 4, 5)), (2, 2, 4, 5))
    source = Zspy(scan_shape=(2, 4))(str(write_folder(tmp_path / "a.zspy", members)))
    assert source.validity.tolist().count(MISSING) == 2
    assert not source.read_frames(6, 8).any()


def test_identity_follows_the_chunks(tmp_path):
    """A chunk that is written anew makes another identity."""
    path = write_folder(tmp_path / "a.zspy", zspy_members(some((2, 2, 3, 3)), (1, 1, 3, 3), compressor=None))
    before = Zspy()(str(path)).identity
    (path / DATA / "0/0/0/0").write_bytes(b"\1" * 30)
    assert Zspy()(str(path)).identity != before


@pytest.mark.parametrize("title", ["a scan", "50 % - of [it]"])
def test_titles_and_several_signals(tmp_path, title):
    """The largest scan is read, whatever its title; others are named and can be asked for."""
    members = zspy_members(some((2, 2, 3, 3)), (2, 2, 3, 3), title="other")
    members |= zspy_members(some((3, 4, 5, 6)), (3, 4, 5, 6), title=title)
    path = write_zip(tmp_path / "a.zspy", members)
    source = Zspy()(str(path))
    assert source.scan_shape == (3, 4)
    assert any("/Experiments/other/data" in text for text in source.metadata.warnings)
    assert Zspy(dataset="Experiments/other")(str(path)).scan_shape == (2, 2)


def changed(**said):
    """Members of a small file whose array is described otherwise; None takes a key away."""
    members = zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3))
    header = json.loads(members[f"{DATA}/.zarray"]) | said
    header = {name: value for name, value in header.items() if value is not None or name in ("filters", "compressor")}
    return members | {f"{DATA}/.zarray": json.dumps(header).encode()}


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ({"dtype": "|O", "filters": [{"id": "vlen-array", "dtype": "<f8"}]}, InputError, "ragged or filtered"),
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, InputError, "ragged or filtered"),
        ({"filters": [{"id": "delta"}]}, InputError, "ragged or filtered"),
        ({"compressor": {"id": "pickle"}}, InputError, "known are blosc"),
        ({"compressor": "blosc"}, InputError, "known are blosc"),
        ({"zarr_format": 3}, FormatVersionError, "zarr_format 3, expected 2"),
        ({"dtype": "<c8"}, InputError, "cannot be a pixel"),
        ({"dtype": [["a", "<u2"]]}, InputError, "cannot be a pixel|not understood"),
        ({"shape": [2, 2, 3]}, CorruptDataError, "it is damaged"),
        ({"shape": [2, 2, 3, -3]}, CorruptDataError, "expected a list of whole numbers"),
        ({"shape": "2233"}, CorruptDataError, "expected a list of whole numbers"),
        ({"shape": [2, 2, 3, 2**60]}, CorruptDataError, "expected a list of whole numbers"),
        ({"chunks": [1, 2, 3, 0]}, CorruptDataError, "it is damaged"),
        ({"chunks": [1, 2, 2**16, 2**16]}, CorruptDataError, "expected at most 2147483647"),
        ({"shape": [2, 2, 2**15, 2**15]}, CorruptDataError, "268435456 pixels"),
        ({"order": "K"}, CorruptDataError, "it is damaged"),
        ({"dimension_separator": "../"}, CorruptDataError, "it is damaged"),
        ({"fill_value": "seven"}, CorruptDataError, "fill value"),
        ({"fill_value": 70000}, CorruptDataError, "fill value"),
        ({"fill_value": [1]}, CorruptDataError, "fill value"),
    ],
)
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_bad_descriptions(tmp_path, write, said, error, match):
    """Objects, unknown codecs and senseless extents are refused before anything is decoded or allocated."""
    with pytest.raises(error, match=match):
        Zspy()(str(write(tmp_path / "a.zspy", changed(**said))))


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        (".zattrs", b"{", CorruptDataError, "is no JSON"),
        (".zattrs", b"[1]", CorruptDataError, "holds a list, expected an object"),
        (".zattrs", b"{}", UnknownFormatError, "file_format None, expected 'ZSpy'"),
        (".zattrs", b'{"file_format": "ZSpy", "file_format_version": "4.0"}', FormatVersionError, "known are those up"),
        (f"{DATA}/.zarray", None, UnknownFormatError, "holds no signal"),
        ("Experiments/__unnamed__/axis-3/.zattrs", b'{"navigate": true}', InputError, "with 1 signal axes"),
    ],
)
def test_bad_trees(tmp_path, write, name, content, error, match):
    """Files of other programs, newer ones and broken ones are told apart."""
    members = zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3))
    del members[name]
    path = write(tmp_path / "a.zspy", members | ({} if content is None else {name: content}))
    with pytest.raises(error, match=match):
        Zspy()(str(path))


@pytest.mark.parametrize("content", [b"", b"\0" * 5, b"\xff" * 100])
@pytest.mark.parametrize("compressor", [BLOSC, {"id": "zstd", "level": 1}, {"id": "lz4"}, {"id": "zlib", "level": 1}])
def test_damaged_chunks(tmp_path, content, compressor):
    """A chunk that does not decode to its size names itself; the other chunks are read."""
    truth = some((2, 2, 3, 3))
    members = zspy_members(truth, (1, 2, 3, 3), compressor=compressor)
    path = write_folder(tmp_path / "a.zspy", members | {f"{DATA}/1/0/0/0": content})
    source = Zspy()(str(path))
    np.testing.assert_array_equal(source.read_frames(0, 2), truth[0])
    with pytest.raises(CorruptDataError, match="chunk 1/0/0/0 in"):
        source.read_frames(2, 3)


@pytest.mark.parametrize("codec", ["blosc", "zstd", "lz4", "zlib", "gzip"])
def test_chunks_of_another_size(codec):
    """A chunk that decodes to fewer or to far more bytes than it should is never taken for a whole one."""
    import numcodecs

    content = bytes(numcodecs.get_codec({"id": codec}).encode(np.zeros(2**20, "u1")))
    for size in (2**20 - 1, 2**20 + 1, 100):
        if codec in ("zlib", "gzip"):  # these do not state their size and are cut behind the byte that betrays them
            assert len(decode(content, codec, size)) == min(size + 1, 2**20)
            continue
        with pytest.raises(ValueError, match=f"of 1048576, expected {size} decoded"):
            decode(content, codec, size)
    assert bytes(decode(content, codec, 2**20)) == b"\0" * 2**20


def test_zip_members_that_are_compressed(tmp_path):
    """Members that zip compressed have no place in the file; the message says how to repack them."""
    members = zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3))
    with pytest.raises(InputError, match=r"repack it with zip -0"):
        Zspy()(str(write_zip(tmp_path / "a.zspy", members, method=zipfile.ZIP_DEFLATED)))


def test_files_that_were_shortened_after_opening(tmp_path):
    """A zip file that became shorter says so instead of giving what it has."""
    path = write_zip(tmp_path / "a.zspy", zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3), compressor=None))
    source = Zspy()(str(path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TruncatedFileError, match="was shortened"):
        source.read_frames(0, 4)
    path.unlink()
    with pytest.raises(NotFoundError, match="does not exist"):
        source.read_frames(0, 4)


def test_links_in_folders_are_not_followed_round(tmp_path):
    """A folder that contains a link to itself is read once."""
    path = write_folder(tmp_path / "a.zspy", zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3)))
    (path / "Experiments/round").symlink_to(path, target_is_directory=True)
    assert Zspy()(str(path)).scan_shape == (2, 2)


def test_a_sample_in_a_zip_file(sample):
    """A file of HyperSpy decodes to the pixels that Zarr 2 reads; its spectra are declined as a scan."""
    path = sample("zspy/signal1d_10x10-ZipStore.zspy")
    tree = Zip(path)
    header = parse_header(tree.read(f"{DATA}/.zarray"), DATA)
    _, members = tree.chunks(f"{DATA}/", header)
    array = np.empty(header.shape, header.dtype)
    for row, column in itertools.product(range(2), range(2)):
        content = path.read_bytes()[slice_of(path, members[f"{row}.{column}"])]
        block = np.frombuffer(decode(content, header.compressor, header.chunk_bytes), header.dtype)
        array[row * 5 : row * 5 + 5, column * 5 : column * 5 + 5] = block.reshape(header.chunks)
    check_array(array, expected(sample, "zspy/signal1d_10x10-ZipStore.zspy"))
    with pytest.raises(InputError, match=r"\(int64, 10 x 10\) with 1 signal axes"):
        Zspy()(str(path))


def slice_of(path, member):
    """Where the content of a stored member lies: behind 30 bytes, its name and its extra field."""
    offset, size = member
    head = path.read_bytes()[offset : offset + 30]
    start = offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return slice(start, start + size)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small zip file and a small folder."""
    folder = tmp_path_factory.mktemp("fuzz")
    members = zspy_members(some((2, 2, 3, 3)), (1, 2, 3, 3))
    return write_zip(folder / "a.zspy", members).read_bytes(), write_folder(folder / "b.zspy", members)


@settings(max_examples=80)
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A zip file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.zspy"
    check_damaged(Zspy(), path, data.draw(damaged(small[0])))


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_folders(tmp_path_factory, small, data):
    """A folder one of whose files is damaged gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "b.zspy"
    shutil.copytree(small[1], path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen = data.draw(st.sampled_from(files))
    chosen.write_bytes(data.draw(damaged(chosen.read_bytes())))
    try:
        source = Zspy()(str(path))
        source.read_frames(0, min(2, source.scan_shape[0]))
    except StemStoreError:
        pass

"""A packed store reads like the store, from a disk and from a server, and a zip that lies is refused."""

import struct
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import ZipStore

import stemstore
from stemstore.errors import (
    ChecksumError,
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
    StemStoreError,
    UnknownFormatError,
)
from stemstore.maintenance.copy import copy_store
from stemstore.maintenance.pack import pack_store
from stemstore.store import zip_directory
from stemstore.store.address import remote
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage


@pytest.fixture
def packed(store):
    """Pack the store, and give the file."""
    return Path(pack_store(store).url)


def test_a_packed_store_opens_in_place(store, packed):
    """Pixels, results, calibration and validation are those of the store; entries are plain."""
    ours, theirs = stemstore.open(packed), stemstore.open(store)
    np.testing.assert_array_equal(ours.intensity.values, theirs.intensity.values)
    assert ours.attrs["beam_energy_keV"] == 200
    mean = stemstore.open_result(packed, "mean")
    np.testing.assert_array_equal(mean.values, stemstore.open_result(store, "mean").values)
    image = stemstore.virtual_image(ours, stemstore.disk(5))
    np.testing.assert_array_equal(image.values, stemstore.virtual_image(theirs, stemstore.disk(5)).values)
    assert stemstore.validate(packed, deep=True).valid
    with zipfile.ZipFile(packed) as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}
        assert file.testzip() is None
        assert file.namelist()[-1] == "stemstore.commit.json"


def test_other_software_reads_it(store, packed):
    """Zarr's ZipStore and xarray find the arrays."""
    with ZipStore(packed, mode="r") as inside:
        group = zarr.open_group(inside, mode="r")
        name = "intensity" if "intensity" in group else "events/gap"
        np.testing.assert_array_equal(group[name][...], zarr.open_group(store, mode="r")[name][...])
        with xr.open_zarr(inside) as dataset:
            assert dataset.sizes["kx"] == 24


def test_packing_is_repeatable_and_unpacking_gives_the_store(store, packed, tmp_path, objects):
    """The same store gives the same bytes, and a copy of the file is the store again."""
    again = pack_store(store, tmp_path / "again.zarr.zip")
    assert Path(again.url).read_bytes() == packed.read_bytes()
    assert again.n_bytes == packed.stat().st_size
    copy_store(packed, tmp_path / "b.zarr")
    assert objects(tmp_path / "b.zarr") == objects(store)
    assert again.n_objects == len(objects(store))


def test_reading_touches_little(packed, monkeypatch):
    """Opening reads the end of the file, one frame its chunk."""
    monkeypatch.setattr("stemstore.store.zipped.TAIL", 4096)
    monkeypatch.setattr("stemstore.store.zipped.LONGEST_END", 4096)
    read, n_bytes = [], packed.stat().st_size
    fetch, tails = type(open_storage(packed.parent)).fetch, type(open_storage(packed.parent)).tails
    monkeypatch.setattr(
        "stemstore.store.local.LocalStorage.fetch",
        lambda self, extents, scratch: read.extend(one.length for one in extents) or fetch(self, extents, scratch),
    )
    monkeypatch.setattr(
        "stemstore.store.local.LocalStorage.tails",
        lambda self, keys, length: read.append(length) or tails(self, keys, length),
    )
    scan = stemstore.open(packed)
    opened = sum(read)
    scan.intensity[4, 4].values  # noqa: B018 - reads it
    assert sum(read) < n_bytes
    assert sum(read) - opened < n_bytes / 4


def test_a_packed_store_on_a_web_server(packed, web, tmp_path, store):
    """Opening takes three requests for any size that fits, and blocks may be kept on a disk."""
    url = f"{web.url}/{packed.name}"
    web.requests.clear()
    scan = stemstore.open(url)
    assert len(web.requests) <= 3
    expected = stemstore.open(store).intensity.values
    np.testing.assert_array_equal(scan.intensity.values, expected)
    for _ in range(2):
        cached = stemstore.open(url, cache=tmp_path / "blocks")
        web.requests.clear()
        np.testing.assert_array_equal(cached.intensity.values, expected)
    assert not web.requests
    report = copy_store(url, tmp_path / "b.zarr")
    assert report.warnings == []
    assert list(stemstore.results(report.url)) == ["mean"]
    assert stemstore.validate(url, deep=True).valid


def test_a_packed_store_anywhere(packed, store):
    """Any place that fsspec knows will do; addresses keep what is needed to reach it."""
    url = f"memory://zips/{store.parent.name}.zarr.zip"
    with fsspec.open(url, "wb") as file:
        file.write(packed.read_bytes())
    np.testing.assert_array_equal(stemstore.open(url).intensity.values, stemstore.open(store).intensity.values)
    address = remote("https://me:secret@example.org/a/b.zarr.zip?signature=abc")
    storage = open_storage(address)
    assert str(storage.root) == "https://example.org/a/b.zarr.zip"
    assert storage.root.full == address.full
    assert storage._file.address.full == "https://me:secret@example.org/a?signature=abc"


def test_nothing_can_be_written_into_it(store, packed, tmp_path):
    """Saving, converting, editing and overwriting are typed errors that say what to do."""
    scan = stemstore.open(packed)
    with pytest.raises(InputError, match="stemstore copy"):
        stemstore.save(stemstore.max_pattern(scan), packed, "max")
    with pytest.raises(InputError, match="nothing can be written"):
        stemstore.convert(store, tmp_path / "b.zarr.zip")
    assert not list(tmp_path.glob("b.zarr.zip*"))


def test_refusals(store, packed, tmp_path, shards):
    """Places that are taken, wrong names, URLs and damaged stores leave no file."""
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        pack_store(store)
    pack_store(store, overwrite=True)
    (tmp_path / "c.zip").mkdir()
    with pytest.raises(DestinationExistsError, match="is a folder"):
        pack_store(store, tmp_path / "c.zip", overwrite=True)
    with pytest.raises(InputError, match=r"does not end in \.zip"):
        pack_store(store, tmp_path / "b.tar")
    with pytest.raises(InputError, match="upload it afterwards"):
        pack_store(store, "s3://bucket/a.zip")
    with pytest.raises(InputError, match="overlap"):
        pack_store(store, store / "a.zip")
    victim = shards(store)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    before = packed.read_bytes()
    with pytest.raises(CorruptDataError, match=victim.relative_to(store).as_posix()):
        pack_store(store, overwrite=True)
    assert packed.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if ".part-" in path.name]


def test_a_replaced_file_is_noticed(store, packed, kept, tmp_path):
    """An open scan whose file was replaced by another one says so."""
    scan = open_store(packed)
    other = tmp_path / "other.zarr"
    stemstore.convert(store, other)
    pack_store(other, packed, overwrite=True)
    from stemstore.errors import StaleStoreError
    from stemstore.selection import Selection

    with pytest.raises(StaleStoreError, match="open it again"):
        scan.read(Selection.full(scan.shape))


def zipped(path, entries):
    """Write a zip of names and bodies with the standard library."""
    with zipfile.ZipFile(path, "w") as file:
        for name, body in entries:
            file.writestr(zipfile.ZipInfo(name), body)
    return path


def patched(path, mark, at, value, which=0):
    """Overwrite a number in the record number `which` that begins with a mark."""
    body = bytearray(path.read_bytes())
    place = -1
    for _ in range(which + 1):
        place = body.index(mark, place + 1)
    body[place + at : place + at + len(value)] = value
    path.write_bytes(bytes(body))
    return path


SIMPLE = [("zarr.json", b"{}"), ("kx/c/0", b"x" * 100), ("ky/c/0", b"y" * 100)]
CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


LIES = {
    "shared with the first": (
        lambda p: patched(p, CENTRAL, 42, struct.pack("<L", 0), 1),
        CorruptDataError,
        "into what begins at",
    ),
    "from the middle of another": (
        lambda p: patched(p, CENTRAL, 42, struct.pack("<L", 5), 2),
        CorruptDataError,
        "into what begins at",
    ),
    "beyond the file": (
        lambda p: patched(p, CENTRAL, 20, struct.pack("<2L", 9999, 9999), 2),
        CorruptDataError,
        "into what begins",
    ),
    "packed smaller": (lambda p: patched(p, CENTRAL, 20, struct.pack("<L", 7), 1), CorruptDataError, "7 bytes for 100"),
    "encrypted": (lambda p: patched(p, CENTRAL, 8, struct.pack("<H", 1), 1), UnknownFormatError, "encrypted"),
    "upwards": (lambda p: patched(p, CENTRAL, 46, b"../c/0", 1), CorruptDataError, "no key of a store"),
    "absolute": (lambda p: patched(p, CENTRAL, 46, b"/x/c/0", 1), CorruptDataError, "no key of a store"),
    "backslash": (lambda p: patched(p, CENTRAL, 46, b"kx\\c/0", 1), CorruptDataError, "no key of a store"),
    "drive": (lambda p: patched(p, CENTRAL, 46, b"C:/c/0", 1), CorruptDataError, "no key of a store"),
    "no utf8": (lambda p: patched(p, CENTRAL, 46, b"k\xff/c/0", 1), CorruptDataError, "no key of a store"),
    "double": (lambda p: patched(p, CENTRAL, 46, b"ky/c/0", 1), CorruptDataError, "twice"),
    "no entry": (lambda p: patched(p, CENTRAL, 0, b"XXXX", 1), CorruptDataError, "entry 1 of the directory"),
    "no wide size": (lambda p: patched(p, CENTRAL, 24, b"\xff" * 4, 1), CorruptDataError, "Zip64 sizes"),
    "too few": (lambda p: patched(p, END, 8, struct.pack("<2H", 2, 2)), CorruptDataError, "behind its last entry"),
    "too many": (lambda p: patched(p, END, 8, struct.pack("<2H", 900, 900)), CorruptDataError, "900 entries"),
    "directory elsewhere": (lambda p: patched(p, END, 16, struct.pack("<L", 9)), CorruptDataError, "is said to end"),
    "no wide end": (lambda p: patched(p, END, 16, b"\xff" * 4), CorruptDataError, "Zip64 end records"),
    "several volumes": (lambda p: patched(p, END, 4, struct.pack("<H", 1)), UnknownFormatError, "several volumes"),
    "other header": (lambda p: patched(p, LOCAL, 30, b"zz", 1), CorruptDataError, "not that of the directory"),
    "long header": (
        lambda p: patched(p, LOCAL, 28, struct.pack("<H", 60000), 1),
        CorruptDataError,
        "not that of the directory",
    ),
    "flipped bit": (lambda p: patched(p, b"xxxx", 0, b"z"), ChecksumError, "CRC-32"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-3]), UnknownFormatError, "does not end as a zip"),
    "no zip": (lambda p: p.write_bytes(b"PK nothing"), UnknownFormatError, "does not end as a zip"),
    "empty": (lambda p: p.write_bytes(b""), UnknownFormatError, "does not end as a zip"),
}


@pytest.mark.parametrize("lie", LIES)
def test_zips_that_lie(tmp_path, lie):
    """Overlaps, wrong sizes, paths that lead away, doubles and cut files are refused before anything is used."""
    change, error, match = LIES[lie]
    path = zipped(tmp_path / "a.zarr.zip", SIMPLE)
    assert open_storage(path).get("kx/c/0") == b"x" * 100
    change(path)
    with pytest.raises(error, match=match):
        open_storage(path).get("kx/c/0")
    with pytest.raises(StemStoreError):
        stemstore.open(path)


def test_compressed_entries_are_refused(tmp_path):
    """They cannot be read in place, and might be bombs."""
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", b"0" * 10_000_000)
    with pytest.raises(UnknownFormatError, match=r"compressed \(method 8\).*stemstore pack"):
        stemstore.open(path)


def test_any_flipped_bit_is_found_or_harmless(store, packed, tmp_path):
    """A bit flipped anywhere in the file ends in a typed error, or in the same pixels."""
    body, expected = packed.read_bytes(), stemstore.open(store).intensity.values
    found = 0
    for at in np.random.default_rng(7).integers(0, len(body), 60).tolist():
        changed = bytearray(body)
        changed[at] ^= 16
        packed.write_bytes(bytes(changed))
        try:
            np.testing.assert_array_equal(stemstore.open(packed).intensity.values, expected)
        except StemStoreError:
            found += 1
    assert found > 20


def test_large_files_and_many_objects(tmp_path):
    """Zip64: an object beyond 4 GiB, and more entries than 65535, are found where they are."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(66_000):
            file.writestr(zipfile.ZipInfo(f"c/{number}"), b"%d" % number)
    assert open_storage(path).get("c/65999") == b"65999"
    entry = zipfile.ZipInfo("far")
    wide = struct.pack("<2H3Q", 1, 24, 5 * 2**30, 5 * 2**30, 6 * 2**30)
    numbers = (b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, 3, len(wide), 0, 0, 0, 0, 2**32 - 1)
    body = zip_directory.CENTRAL.pack(*numbers) + entry.filename.encode() + wide
    bounds = zip_directory.Bounds(12 * 2**30, len(body), 1)
    (found,) = zip_directory.parse_directory(body, bounds, "a.zip").values()
    assert (found.offset, found.size) == (6 * 2**30, 5 * 2**30)


def test_places_without_a_file(tmp_path):
    """A file that is not there is not found, one of another kind not recognised; a folder of that name is a store."""
    with pytest.raises(NotFoundError, match="nowhere"):
        stemstore.open(tmp_path / "nowhere.zarr.zip")
    with pytest.raises(NotFoundError, match="kz"):
        open_storage(zipped(tmp_path / "a.zip", SIMPLE)).get("kz")
    with pytest.raises(UnknownFormatError):
        stemstore.open(tmp_path / "a.zip")


def test_folders_named_like_a_zip(store, tmp_path):
    """What lies in a folder is read from the folder, whatever its name."""
    store.rename(tmp_path / "b.zip")
    assert stemstore.open(tmp_path / "b.zip").intensity.shape == (10, 9, 32, 24)

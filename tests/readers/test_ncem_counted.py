"""Counted HDF5 of versions 1, 2 and 3: rows become frames, sums are kept, damage is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from encoders import write_counted
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID, EventSource
from stemstore.testing import ReaderTests
from stemstore.testing.reader_tests import read
from stemstore_readers.ncem_counted import NcemCounted

SCAN, FRAME = (3, 5), (4, 10)  # neither is square: the attributes Nx and Ny mean different things for the two
RATE = 3


def random_rows(count: int, seed: int = 0) -> list[list[int]]:
    """Sorted distinct events per row, some rows empty."""
    random = np.random.default_rng(seed)
    return [sorted(random.choice(40, random.poisson(RATE), replace=False).tolist()) for _ in range(count)]


def dense(rows: list[list[int]]) -> np.ndarray:
    """Electrons per pixel of each row."""
    return np.array([np.bincount(np.array(row, int), minlength=40) for row in rows]).reshape(len(rows), *FRAME)


class TestConformance(ReaderTests):
    """The shared tests on version 3, two frames a position, one flyback column, frames not square."""

    reader_cls = NcemCounted
    truncation = "error"

    def make_file(self, tmp_path):
        rows = random_rows(30)
        path = write_counted(tmp_path / "FOURD_230815_1230_00012_00345.h5", rows, scan=SCAN, frame=FRAME)
        return str(path), dense(rows).reshape(*SCAN, 2, *FRAME).transpose(2, 0, 1, 3, 4), {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("electron_events")
            frames = group.create_dataset("frames", (4_000_000,), dtype=h5py.vlen_dtype(np.uint32))
            frames.attrs["Nx"], frames.attrs["Ny"] = FRAME
            frames[0] = np.arange(3, dtype=np.uint32)
            positions = group.create_dataset("scan_positions", data=np.arange(4))
            positions.attrs["Nx"], positions.attrs["Ny"] = 2000, 2000
            file.attrs["version"] = 3
        return str(path), {}


class TestConformanceVersion1(TestConformance):
    """The shared tests on version 1: one row a position, unsorted, with repeated indices, the version not written."""

    def make_file(self, tmp_path):
        rows = [[5, 5, 9], [], [39, 0, 17, 0], [1], [3, 2], [8]]
        path = write_counted(tmp_path / "old.hdf5", rows, scan=(2, 3), frame=FRAME, version=None)
        return str(path), dense(rows).reshape(2, 3, *FRAME), {}


def test_index_is_row_times_columns_plus_column(tmp_path):
    """Row 2, column 7 of a 4 x 10 frame is the event 27."""
    path = write_counted(tmp_path / "a.h5", [[27], []], scan=(1, 2), frame=FRAME)
    source = NcemCounted()(str(path))
    assert source.frame_shape == FRAME
    assert read(source, 0, 1)[0, 2, 7] == 1


def test_names_of_extents(tmp_path):
    """Nx is the width of the scan but the number of rows of a frame."""
    path = write_counted(tmp_path / "a.h5", random_rows(30), scan=SCAN, frame=FRAME)
    with h5py.File(path) as file:
        assert dict(file["electron_events/scan_positions"].attrs) == {"Nx": 5, "Ny": 3}
        assert dict(file["electron_events/frames"].attrs) == {"Nx": 4, "Ny": 10}
    source = NcemCounted()(str(path))
    assert (source.scan_shape, source.frame_shape) == ((2, 3, 5), (4, 10))


def test_frame_dimensions_variant(tmp_path):
    """The early attribute frame_dimensions is (width, height)."""
    path = write_counted(tmp_path / "a.h5", random_rows(15), scan=SCAN, frame=FRAME, dimensions=True)
    assert NcemCounted()(str(path)).frame_shape == (4, 10)


def test_versions_keep_the_pixel_sums(tmp_path):
    """One scan as version 1, 2 and 3 has the same electrons per position and pixel."""
    one = write_counted(tmp_path / "1.h5", [[5, 5, 9], [7]], scan=(1, 2), frame=FRAME, version=1)
    two = write_counted(tmp_path / "2.h5", [[5, 9], [7], [5]], scan=(1, 2), frame=FRAME, version=2, positions=[0, 1, 0])
    three = write_counted(tmp_path / "3.h5", [[5, 9], [5], [7], []], scan=(1, 2), frame=FRAME, version=3)
    first, second, third = (NcemCounted()(str(path)) for path in (one, two, three))
    assert [source.scan_shape for source in (first, second, third)] == [(1, 2), (2, 1, 2), (2, 1, 2)]
    np.testing.assert_array_equal(read(second, 0, 4), read(third, 0, 4))
    np.testing.assert_array_equal(read(first, 0, 2), read(third, 0, 4).reshape(2, 2, *FRAME).sum(axis=0))
    assert second.read_events(0, 4).indices.tolist() == [5, 9, 7, 5]


def test_version_1_keeps_multiplicity_in_one_frame(tmp_path):
    """A repeated index of version 1 stays an event that counts twice."""
    path = write_counted(tmp_path / "a.h5", [[9, 5, 5]], scan=(1, 1), frame=FRAME, version=1)
    assert NcemCounted()(str(path)).read_events(0, 1).indices.tolist() == [5, 5, 9]


def test_version_2_rows_in_any_order(tmp_path):
    """Rows of version 2 go to their positions; exposures a position lacks are missing, not empty."""
    rows = [[1], [2], [3], [4]]
    path = write_counted(tmp_path / "a.h5", rows, scan=(1, 3), frame=FRAME, version=2, positions=[2, 0, 2, 2])
    source = NcemCounted()(str(path))
    assert source.scan_shape == (3, 1, 3)
    expected = [[VALID, MISSING, VALID], [MISSING, MISSING, VALID], [MISSING, MISSING, VALID]]
    assert source.validity.reshape(3, 3).tolist() == expected
    assert source.read_events(2, 3).indices.tolist() == [1]
    assert source.read_events(0, 9).indices.tolist() == [2, 1, 3, 4]


@pytest.mark.parametrize("on_group", [False, True])
def test_version_on_root_or_group(tmp_path, on_group):
    """A version written on the group alone counts like one on the root."""
    path = write_counted(tmp_path / "a.h5", random_rows(30), scan=SCAN, frame=FRAME, on_group=on_group)
    assert NcemCounted()(str(path)).metadata.vendor["version"] == 3


def test_root_version_wins(tmp_path):
    """Where root and group disagree the root counts, and the option counts more than both."""
    path = write_counted(tmp_path / "a.h5", random_rows(15), scan=SCAN, frame=FRAME, version=3)
    with h5py.File(path, "a") as file:
        file["electron_events"].attrs["version"] = 2
    assert NcemCounted()(str(path)).metadata.vendor["version"] == 3
    assert NcemCounted(version=1)(str(path)).metadata.vendor["version"] == 1


def test_sum_is_the_histogram_of_all_events(tmp_path):
    """The sum over the scan equals the histogram of every event in the file."""
    rows = random_rows(30)
    path = write_counted(tmp_path / "a.h5", rows, scan=SCAN, frame=FRAME)
    total = read(NcemCounted()(str(path)), 0, 30).sum(axis=0)
    np.testing.assert_array_equal(total.reshape(-1), np.bincount(np.concatenate(rows).astype(int), minlength=40))


@settings(max_examples=25, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 39), max_size=6), min_size=1, max_size=12),
    repeats=st.integers(1, 4),
    data=st.data(),
)
def test_any_version_2_layout_keeps_every_event(tmp_path_factory, lists, repeats, data):
    """Whatever positions rows have, each position keeps exactly its events, in file order over the exposures."""
    positions = data.draw(st.lists(st.integers(0, repeats), min_size=len(lists), max_size=len(lists)))
    path = tmp_path_factory.mktemp("v2") / "a.h5"
    write_counted(path, lists, scan=(1, repeats + 1), frame=FRAME, version=2, positions=positions)
    source = NcemCounted()(str(path))
    n_frames = int(np.prod(source.scan_shape))
    frames = read(source, 0, n_frames).reshape(-1, repeats + 1, *FRAME)
    for position in range(repeats + 1):
        mine = [row for row, where in zip(lists, positions, strict=True) if where == position]
        np.testing.assert_array_equal(frames[: len(mine), position], dense(mine))
        assert not frames[len(mine) :, position].any()


@pytest.mark.parametrize("rows", [[[]] * 6, [[1, 2]] * 6])
def test_equal_row_lengths(tmp_path, rows):
    """Scans whose rows are all empty, or all equally long, are scans like any other; stempy 3.6 cannot save them."""
    path = write_counted(tmp_path / "a.h5", rows, scan=(2, 3), frame=FRAME)
    np.testing.assert_array_equal(read(NcemCounted()(str(path)), 0, 6), dense(rows))


def test_index_outside_the_frame(tmp_path):
    """An event beyond the detector names its row and value."""
    rows = random_rows(15)
    rows[7] = [3, 40]
    path = write_counted(tmp_path / "a.h5", rows, scan=SCAN, frame=FRAME)
    source = NcemCounted()(str(path))
    with pytest.raises(CorruptDataError, match=r"row 7 of .* holds the event 40, expected 0 to 39"):
        source.read_events(0, 15)
    assert source.read_events(0, 7).n_frames == 7


def test_position_outside_the_scan(tmp_path):
    """A row of version 2 at a position beyond the scan is refused with its row and value."""
    path = write_counted(tmp_path / "a.h5", [[1], [2]], scan=(1, 2), frame=FRAME, version=2, positions=[0, 2])
    with pytest.raises(CorruptDataError, match=r"row 1 of .* is 2, expected 0 to 1"):
        NcemCounted()(str(path))


def test_rows_without_positions(tmp_path):
    """Version 2 needs a position for every row and says which option helps."""
    path = write_counted(tmp_path / "a.h5", [[1]] * 4, scan=(1, 2), frame=FRAME, version=2)
    with pytest.raises(CorruptDataError, match=r"4 rows and 2 scan positions.* pass version=3"):
        NcemCounted()(str(path))


@pytest.mark.parametrize(("count", "state", "text"), [(2, [2, 2, 0], "missing"), (4, None, "1 rows behind")])
def test_row_number_that_does_not_fit_version_3(tmp_path, count, state, text):
    """Rows that are lacking are missing frames, rows left over are reported."""
    path = write_counted(tmp_path / "a.h5", [[1]] * count, scan=(1, 3), frame=FRAME)
    source = NcemCounted()(str(path))
    assert (None if source.validity is None else source.validity.tolist()) == state
    assert any(text in warning for warning in source.metadata.warnings)


def test_unknown_version(tmp_path):
    """A version that is not known is refused, in the file and as an option."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME, version=4)
    with pytest.raises(FormatVersionError, match="version 4, known are 1, 2 and 3"):
        NcemCounted()(str(path))
    with pytest.raises(InputError, match="version=0 is not known"):
        NcemCounted(version=0)


@pytest.mark.parametrize("stated", ["abc", [1, 2], 2.5, b"3"])
def test_version_that_is_no_number(tmp_path, stated):
    """Whatever stands in the place of the version is quoted, and is no fault of the reader."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME, version=None)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = stated
    with pytest.raises(FormatVersionError, match=r"has version .*known are 1, 2 and 3"):
        NcemCounted()(str(path))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_senseless_sizes(tmp_path, version):
    """Attributes that would fill the memory are damage, for the scan and for the frame."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME, version=version)
    with h5py.File(path, "r+") as file:
        file["electron_events/scan_positions"].attrs["Nx"] = 2**31 - 1
    with pytest.raises(CorruptDataError, match="only 1 frames were found"):
        NcemCounted()(str(path))
    path = write_counted(tmp_path / "b.h5", [[1]], scan=(1, 1), frame=(70_000, 70_000), version=version)
    with pytest.raises(CorruptDataError, match="frames of 70000 by 70000 pixels"):
        NcemCounted()(str(path))


def test_counting_metadata(tmp_path):
    """Attributes of the counting are kept verbatim and mapped to the description of the counting."""
    attributes = {
        "background_threshold": 28.67,
        "x_ray_threshold": 384.98,
        "optimized_mean": 20.5,
        "optimized_std_dev": 1.815,
        "background_threshold_n_sigma": 4.5,
        "x_ray_threshold_n_sigma": 175.0,
        "number_of_samples": np.int64(40),
        "threshold_calculated": np.bool_(True),
        "program": b"stempy",
        "nested": {"variance": np.nan},
    }
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME, metadata=attributes)
    metadata = NcemCounted()(str(path)).metadata
    kept = metadata.vendor["electron_counting"]
    assert kept["nested"]["variance"] == "NaN"
    assert (kept["program"], kept["threshold_calculated"], kept["number_of_samples"]) == ("stempy", True, 40)
    counting = metadata.counting
    assert (counting.rule, counting.background_threshold, counting.xray_threshold) == ("stempy", [28.67], 384.98)
    assert (counting.pedestal_mean, counting.pedestal_sigma, counting.n_sampled_frames) == (20.5, 1.815, 40)
    assert (counting.background_sigma, counting.xray_sigma) == (4.5, 175.0)


def test_parts_of_a_scan_keep_what_is_known(tmp_path):
    """A part and its binned patterns carry the attributes of the scan; with stempy 3.6 they lose the metadata."""
    path = write_counted(tmp_path / "a.h5", random_rows(12), scan=(4, 3), frame=FRAME, metadata={"a": 1})
    scan = stemstore.open(path, beam_energy=300, scan_step="0.5 nm", flyback=True)
    part = scan.isel(y=slice(1, None), kx=slice(2, 8))
    assert part.attrs == scan.attrs
    assert part.intensity.attrs == scan.intensity.attrs
    assert part.y.attrs["units"] == "nm"
    binned = stemstore.bin_detector(part, 2)
    assert binned.attrs["beam_energy_keV"] == 300


def test_arithmetic_of_frames_that_are_not_square(tmp_path):
    """Largest value, bins and images of 4 x 10 pixels with an empty frame, each of which stempy 3.6 gets wrong."""
    path = write_counted(tmp_path / "a.h5", [[27, 27], [27], [], [0]], scan=(2, 2), frame=FRAME, version=1)
    scan = stemstore.open(path)
    np.testing.assert_array_equal(scan.intensity.max(("ky", "kx")), [[2, 1], [0, 1]])
    binned = stemstore.bin_detector(scan, 2).values
    assert np.argwhere(binned[0, 0]).tolist() == [[1, 3]]
    image = stemstore.virtual_image(scan, stemstore.rectangle((1, 3), (5, 9)))
    np.testing.assert_array_equal(image, [[2, 1], [0, 0]])


def test_counting_without_metadata_is_foreign(tmp_path):
    """A file that does not tell how it was counted is of a foreign rule."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME)
    assert NcemCounted()(str(path)).metadata.counting.rule == "foreign"


def test_flyback_column(tmp_path):
    """One column more than rows is guessed as flyback and reported, a stated number is taken."""
    path = write_counted(tmp_path / "a.h5", [[1]] * 6, scan=(2, 3), frame=FRAME)
    guessed = NcemCounted()(str(path)).metadata
    assert guessed.acquisition.flyback_columns == 1
    assert any("guessed to be flyback" in text for text in guessed.warnings)
    assert NcemCounted(flyback_columns=0)(str(path)).metadata.acquisition.flyback_columns == 0


def test_scan_number_from_the_name(tmp_path):
    """The scan number is the last number of the Distiller's file name."""
    path = write_counted(tmp_path / "FOURD_230815_1230_00012_00345_centered.h5", [[1]], scan=(1, 1), frame=FRAME)
    assert NcemCounted()(str(path)).metadata.acquisition.scan_number == 345


def test_other_hdf5(tmp_path):
    """HDF5 without electron events is no counted scan, and says what it holds."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UnknownFormatError, match=r"holds \['data'\], expected electron_events/frames"):
        NcemCounted()(str(path))


def test_no_hdf5(tmp_path):
    """A file without the magic number of HDF5 is refused with its first bytes."""
    path = tmp_path / "other.h5"
    path.write_bytes(b"hello world")
    with pytest.raises(UnknownFormatError, match="starts with b'hello wo'"):
        NcemCounted()(str(path))


def test_half_a_file(tmp_path):
    """Half an HDF5 file is truncated, not an unknown failure."""
    path = write_counted(tmp_path / "a.h5", random_rows(15), scan=SCAN, frame=FRAME)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TruncatedFileError, match="ends before its content does"):
        NcemCounted()(str(path))


def test_frames_that_are_not_rows_of_events(tmp_path):
    """A dense array under the name of the events is refused, and never unpickled."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["electron_events/frames"] = np.zeros((3, 4))
        file["electron_events/scan_positions"] = np.arange(3)
    with pytest.raises(CorruptDataError, match="expected one row of whole numbers of variable length"):
        NcemCounted()(str(path))


@pytest.mark.parametrize(("name", "key"), [("scan_positions", "Nx"), ("frames", "Ny")])
def test_missing_extents(tmp_path, name, key):
    """A missing extent is named with its dataset."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME)
    with h5py.File(path, "a") as file:
        del file["electron_events"][name].attrs[key]
    with pytest.raises(CorruptDataError, match=f"attribute {key} of electron_events/{name}"):
        NcemCounted()(str(path))


def test_source_is_an_event_source(tmp_path):
    """The source keeps the contract of event sources."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME)
    assert isinstance(NcemCounted()(str(path)), EventSource)


def test_matches_counted_files(tmp_path):
    """Content proves it where the head shows the group; else the name of the Distiller counts, else hardly."""
    path = write_counted(tmp_path / "a.h5", [[1]], scan=(1, 1), frame=FRAME)
    head = path.read_bytes()[:4096]
    assert NcemCounted.matches(str(path), head) == 0.95
    assert NcemCounted.matches("FOURD_230815_1230_00012_00345.h5", head[:8]) == 0.6
    assert NcemCounted.matches("other.h5", head[:8]) == 0.1

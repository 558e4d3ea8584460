"""Many raw scans become one series: each by itself, entered when it is finished, nothing lost when one fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.conversion.series.run import convert_series
from stemstore.conversion.series.sources import RawScan, slug, without_companions
from stemstore.errors import DestinationExistsError, InputError, NotFoundError, ScanWarning, SeriesIncompleteError
from stemstore.scan.series.open import open_series
from stemstore.store.series.entry import index_series
from stemstore.store.series.index import open_series_group
from stemstore_schemas import SourceFile

N = 3


@pytest.fixture
def stack():
    """Electrons per pixel of several scans."""
    return np.random.default_rng(9).poisson(0.6, (N, 4, 5, 9, 8)).astype(np.uint16)


@pytest.fixture
def raw(tmp_path, stack):
    """A folder of raw scans, and of things that are none."""
    folder = tmp_path / "day 3"
    folder.mkdir()
    for number, frames in zip((1, 2, 10), stack, strict=True):
        np.save(folder / f"scan {number}.npy", frames)
    (folder / "notes.txt").write_text("a good day")
    (folder / ".hidden.npy").write_bytes((folder / "scan 1.npy").read_bytes())
    return folder


@pytest.fixture
def series(tmp_path):
    """Where the series goes."""
    return tmp_path / "day_3.zarr"


def contents(folder):
    """Every file below a folder with its bytes and time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def states(report):
    """What became of each scan."""
    return {scan.name: scan.state for scan in report.scans}


def test_a_folder_becomes_a_series(raw, series, stack):
    """Scans come in natural order with what they were called; other entries are told."""
    report = convert_series(raw, series, title="day 3", beam_energy=300, detector_step="1 mrad")
    assert states(report) == dict.fromkeys(("scan_1", "scan_2", "scan_10"), "converted")
    assert [Path(entry).name for entry in report.skipped] == ["notes.txt"]
    ds = open_series(series)
    np.testing.assert_array_equal(ds.intensity, stack)
    assert ds.attrs["title"] == "day 3"
    assert ds.attrs["beam_energy_keV"] == 300
    assert [scan.title for scan in open_series_group(series).document.scans] == ["scan 1", "scan 2", "scan 10"]
    assert stemstore.validate(series / "scan_10").valid


def test_a_series_beside_its_sources(raw, stack):
    """A series that lies in the folder of its raw scans is none of them."""
    convert_series(raw, raw / "series.zarr")
    report = convert_series(raw, raw / "series.zarr", resume=True)
    assert set(states(report).values()) == {"there"}
    assert {Path(entry).name for entry in report.skipped} == {"notes.txt", "series.zarr"}
    np.testing.assert_array_equal(open_series(raw / "series.zarr").intensity, stack)


def test_lists_names_and_places(raw, series, stack):
    """Scans are named by a mapping, and placed by name or in order; events are counted as asked."""
    sources = {"late": raw / "scan 2.npy", "early": [raw / "scan 1.npy"]}
    options = {"count": True, "background_threshold": 2.5, "xray_threshold": 99}
    convert_series(sources, series, order={"early": -3, "late": 3}, unit="deg", dim="tilt", **options)
    ds = open_series(series)
    assert ds.intensity.dims[0] == "tilt"
    assert (ds.tilt.values.tolist(), ds.tilt.attrs["units"]) == ([3, -3], "deg")
    by_tilt = ds.sortby("tilt")
    assert by_tilt.scan.values.tolist() == ["early", "late"]
    assert stemstore.explain(stemstore.virtual_image(by_tilt, np.ones((9, 8)))).startswith("fused")
    assert stemstore.open(series / "late").intensity.shape == stack[1].shape


def test_appending_leaves_what_is_there(raw, series, stack):
    """A later scan is added; not one byte of the earlier stores is written."""
    last = raw / "scan 10.npy"
    last.rename(raw.parent / "later.npy")
    convert_series(raw, series)
    before = contents(series)
    shutil.move(raw.parent / "later.npy", last)
    with pytest.raises(DestinationExistsError, match="exists; add scans with append=True"):
        convert_series(raw, series)
    assert states(convert_series(raw, series, append=True)) == {
        "scan_1": "there",
        "scan_2": "there",
        "scan_10": "converted",
    }
    after = contents(series)
    assert all(after[key] == before[key] for key in before if key != "zarr.json")
    np.testing.assert_array_equal(open_series(series).intensity, stack)


def test_one_that_fails_does_not_hold_up_the_others(raw, series, stack):
    """The others are converted, the error names it, and a repeated call does only what is missing."""
    whole = (raw / "scan 2.npy").read_bytes()
    (raw / "scan 2.npy").write_bytes(whole[:50])
    with pytest.raises(
        SeriesIncompleteError, match="1 of 3 scans could not be converted: scan_2; the other 2"
    ) as caught:
        convert_series(raw, series, resume=True)
    assert "scan 'scan_2': " in caught.value.__notes__[0]
    assert states(caught.value.context["report"]) == {"scan_1": "converted", "scan_2": "failed", "scan_10": "converted"}
    assert open_series(series).scan.values.tolist() == ["scan_1", "scan_10"]
    (raw / "scan 2.npy").write_bytes(whole)
    assert states(convert_series(raw, series, resume=True)) == {
        "scan_1": "there",
        "scan_2": "converted",
        "scan_10": "there",
    }
    ds = open_series(series)
    np.testing.assert_array_equal(ds.isel(time=ds.scan.values.tolist().index("scan_2")).intensity, stack[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["stemstore.conversion.series.work.entry_of", "stemstore.store.writer.StoreWriter.finalise"]
)
def test_killed_at_the_worst_moment(raw, series, stack, moment):
    """Killed between store and index, or before the store is whole: the series opens, and the next call goes on."""
    module, _, name = moment.rpartition(".")
    script = (
        "import os, sys, pkgutil\n"
        "import stemstore.conversion.series.run as verb\n"
        f"place = pkgutil.resolve_name({module!r})\n"
        f"real = getattr(place, {name!r})\n"
        "calls = []\n"
        "def killing(*arguments, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return real(*arguments, **options)\n"
        f"setattr(place, {name!r}, killing)\n"
        "verb.convert_series(sys.argv[1], sys.argv[2])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", script, str(raw), str(series)], env=environment, check=False)
    assert ended.returncode == -9
    assert open_series(series).scan.values.tolist() == ["scan_1"]
    finished = (series / "scan_2").exists()
    assert finished == (name == "entry_of")
    found = states(convert_series(raw, series, resume=True))
    assert found == {"scan_1": "there", "scan_2": "entered" if finished else "converted", "scan_10": "converted"}
    np.testing.assert_array_equal(open_series(series).intensity, stack)


def test_ctrl_c_keeps_what_is_done(raw, series, monkeypatch):
    """An interruption says how many scans are in the series and how to go on."""
    from stemstore.conversion.series import work as room

    real, calls = room.convert, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(room, "convert", stopped)
    with pytest.raises(KeyboardInterrupt) as caught:
        convert_series(raw, series)
    assert caught.value.__notes__[-1].startswith("1 of 3 scans are in")
    assert open_series_group(series).document.scans[0].name == "scan_1"


def test_the_same_data_twice(raw, series, stack):
    """The same files under another name, copies of them, and other files under a name that is taken are refused."""
    convert_series({"a": raw / "scan 1.npy"}, series)
    with pytest.raises(SeriesIncompleteError) as caught:
        convert_series({"b": raw / "scan 1.npy", "c": raw / "scan 2.npy"}, series, append=True)
    assert caught.value.context["failed"].keys() == {"b"}
    assert "is in" in caught.value.__notes__[0]
    shutil.copyfile(raw / "scan 1.npy", raw / "copy.npy")
    with pytest.raises(SeriesIncompleteError, match="no scan could be converted") as caught:
        convert_series([raw / "copy.npy"], series, append=True)
    assert "scan 'a', which was made from the same raw data" in caught.value.__notes__[0]
    assert not (series / "copy").exists()
    with pytest.raises(SeriesIncompleteError) as caught:
        convert_series({"a": raw / "scan 10.npy"}, series, append=True)
    assert "it was made from other files" in caught.value.__notes__[0]
    np.testing.assert_array_equal(open_series(series).intensity, stack[:2])


@pytest.mark.parametrize(
    ("sources", "options", "reason"),
    [
        (["scan 1.npy", "other/scan 1.npy"], {}, "two scans are called 'scan_1'"),
        ({"a": "scan 1.npy", "b": "scan 1.npy"}, {}, "scans 'a' and 'b' are made of the same files"),
        (["scan 1.npy"], {"order": [1, 2]}, "order has 2 places for 1 scans"),
        (["scan 1.npy"], {"unit": "s"}, "unit='s' without places"),
        (["scan 1.npy"], {"overwrite": True}, "a series is not overwritten"),
        ([], {}, "no scans are named"),
        (["scan 1.npy"], {"dim": "x"}, "dim='x' .*cannot be stored"),
    ],
)
def test_wrong_calls_convert_nothing(raw, series, sources, options, reason):
    """Mistakes are found before any work, and leave nothing behind."""
    (raw / "other").mkdir()
    shutil.copyfile(raw / "scan 1.npy", raw / "other" / "scan 1.npy")
    named = {k: raw / v for k, v in sources.items()} if isinstance(sources, dict) else [raw / one for one in sources]
    with pytest.raises(InputError, match=reason):
        convert_series(named, series, **options)
    assert not series.exists()


def test_places_belong_to_all_or_none(raw, series):
    """A scan added later needs a place as the others have, and keeps the one that it has."""
    convert_series([raw / "scan 1.npy"], series, order=[5], unit="s")
    with pytest.raises(InputError, match="the scans of the series have places along it; give order="):
        convert_series([raw / "scan 2.npy"], series, append=True)
    with pytest.raises(InputError, match=r"scan 'scan_1' has the place 5.0 in the series, not 6.0"):
        convert_series([raw / "scan 1.npy"], series, append=True, order=[6])
    convert_series([raw / "scan 1.npy", raw / "scan 2.npy"], series, append=True, order=[5, 6])
    assert open_series(series).time.values.tolist() == [5, 6]


def test_destinations_that_are_taken(raw, series, tmp_path):
    """A store, or a folder of anything, does not become a series by mistake."""
    stemstore.convert(raw / "scan 1.npy", series)
    for options in ({}, {"append": True}):
        with pytest.raises(DestinationExistsError, match="exists and is no series of scans"):
            convert_series(raw, series, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no reader recognises an entry"):
        convert_series(tmp_path / "empty", tmp_path / "new.zarr")


def test_warnings_name_their_scan(raw, series):
    """What is odd about a scan is told with its name."""
    (raw / "scan 2.npy").unlink()
    frames = np.zeros((2, 3, 9, 8), np.uint16)
    frames[0, 0] = np.arange(72).reshape(9, 8)
    np.save(raw / "scan 2.npy", frames)
    options = {"count": True, "background_threshold": 0.5, "xray_threshold": 1e3}
    with pytest.warns(ScanWarning, match="scan 'scan_2': .*"):
        convert_series([raw / "scan 2.npy"], series, **options)


@pytest.mark.slow
def test_stores_are_sources_as_well(raw, series, tmp_path, stack):
    """Finished stores in a folder are laid out anew, or counted."""
    stemstore.convert(raw / "scan 1.npy", tmp_path / "stores" / "a.zarr")
    stemstore.convert(raw / "scan 2.npy", tmp_path / "stores" / "b.zarr")
    report = convert_series(tmp_path / "stores", series, profile="balanced")
    assert states(report) == {"a": "converted", "b": "converted"}
    np.testing.assert_array_equal(open_series(series).intensity, stack[:2])
    assert states(convert_series(tmp_path / "stores", series, resume=True)) == {"a": "there", "b": "there"}


def test_files_of_one_scan_are_one_scan():
    """Of entries of a folder that are made of the same files, or of some of another's, one is left."""

    def scan(name, *files):
        return RawScan(name, name, files=[SourceFile(path=f"/raw/{file}", size=1) for file in files])

    master, part = scan("master", "master", "data_1", "data_2"), scan("data_1", "data_1")
    pair = [scan("a", "a.hdr", "a.mib"), scan("a_2", "a.hdr", "a.mib")]
    unknown = scan("unknown")
    assert without_companions([part, master, *pair, unknown]) == [master, pair[0], unknown]


def test_names_of_stores():
    """Any text becomes a name that a store may have."""
    assert slug("Größe 3 (2)") == "Gr_e_3_2_"
    assert slug("..") == "scan"
    assert slug("derived") == "derived_scan"
    assert slug("__x") == "_x"


@pytest.mark.slow
def test_a_series_made_twice_is_the_same(raw, series, tmp_path):
    """A series of stores that were converted one by one is like one converted together."""
    convert_series(raw, series)
    for name in ("scan 1", "scan 2", "scan 10"):
        stemstore.convert(raw / f"{name}.npy", tmp_path / "other" / name.replace(" ", "_"))
    index_series(tmp_path / "other")
    one, other = open_series(series), open_series(tmp_path / "other")
    assert one.drop_vars("scan_uuid").equals(other.drop_vars("scan_uuid"))


def test_places_go_by_the_names_that_were_given(raw, series):
    """A name that a store cannot have is found among the places all the same."""
    scans = {"a ü": raw / "scan 1.npy", "b": raw / "scan 2.npy"}
    convert_series(scans, series, order={"a ü": 5, "b": 2})
    ds = open_series(series)
    assert dict(zip(ds.scan.values.tolist(), ds.time.values.tolist(), strict=True)) == {"a_": 5, "b": 2}


def test_an_odd_axis_is_told_in_one_line(raw, series):
    """The refusal of a name says why, without the words of the library that found it."""
    with pytest.raises(InputError, match=r"cannot be stored: dim is 'y', the name of another axis; [^\n]*$"):
        convert_series(raw, series, dim="y")


@pytest.mark.parametrize("name", ["derived", "calibration"])
def test_no_store_takes_the_place_of_results(raw, series, name):
    """Where a series keeps results and calibration no scan is written."""
    convert_series(raw, series)
    with pytest.raises(InputError, match="choose another name"):
        stemstore.convert(raw / "scan 1.npy", series / name)


def test_no_store_in_a_store(raw, series, tmp_path):
    """A store inside of another one would be carried along as something foreign."""
    stemstore.convert(raw / "scan 1.npy", tmp_path / "a.zarr")
    with pytest.raises(InputError, match="lies inside of the store"):
        stemstore.convert(raw / "scan 2.npy", tmp_path / "a.zarr/b.zarr")


def test_no_scan_at_all(tmp_path, series):
    """Where every scan fails, nothing is said of others."""
    with pytest.raises(SeriesIncompleteError, match=r"^no scan could be converted to '.*': gone\. Mend"):
        convert_series({"gone": tmp_path / "gone.npy"}, series)

"""The verb ``info``."""

import re
import shutil

import pytest
import xarray as xr

import stemstore
from stemstore.ops.saved.save import save
from stemstore.store.writer import StoreWriter


def test_summary(call, store):
    """Axes with their units, state, frames and size are told."""
    result = call("info", store)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "4 steps of 0.5 nm, 0 to 1.5 (from user)" in text
    assert "complete" in text
    assert "20 valid" in text
    assert "300 keV (from user)" in text
    assert "chunks of 4x8x16x16, shards of 4x8x16x16, 1 of them" in text
    assert "convert on 20" in text
    assert "ARRAY" not in text


def test_tree_and_history(call, store, raw):
    """The arrays with their chunks, and the conversion with its input."""
    lines = call("info", store, "--tree", "--history").stdout.splitlines()
    array = next(line.split() for line in lines if line.startswith("intensity"))
    assert (array[1], array[-1]) == ("4x5x16x16", "uint16")
    assert any("convert" in line and line.endswith(raw) for line in lines)


def test_json_document(document, store, frames):
    """The document carries the whole scan document and the sizes."""
    found = document("info", store)
    assert (found["verb"], found["complete"], found["document"]["kind"]) == ("info", True, "stemstore.scan")
    sizes = found["sizes"]
    assert sizes["raw_bytes"] == frames.nbytes
    assert sizes["compression_ratio"] == pytest.approx(frames.nbytes / sizes["stored_bytes"])


def test_counted_store_tells_electrons(call, document, raw, tmp_path):
    """Electrons per frame follow from the number of events, missing frames left out."""
    limits = ["--count", "--background-threshold", "1.5", "--xray-threshold", "100", "--scan-shape", "5x5"]
    report = document("convert", raw, tmp_path / "c.zarr", *limits, "--progress", "none")
    found = document("info", tmp_path / "c.zarr")
    assert found["sizes"]["events_per_frame"] == pytest.approx(report["n_events"] / 20)
    held = sum(path.stat().st_size for path in (tmp_path / "c.zarr/events/gap/c").rglob("*") if path.is_file())
    assert found["sizes"]["bits_per_event"] == pytest.approx(8 * held / report["n_events"])
    text = call("info", tmp_path / "c.zarr").stdout
    assert "background 1.5, X-ray 100\n" in text
    assert "20 valid, 5 missing" in text


def test_saved_results_are_told(call, document, store, tmp_path):
    """Each saved result has its operation, time, dims and units; one that is broken says so."""
    url = shutil.copytree(store, tmp_path / "a.zarr")
    assert document("info", url)["results"] == []
    save(stemstore.center_of_mass(stemstore.open(url)), url, "com")
    save(xr.DataArray([1.0], dims="k"), url, "by-hand")
    shutil.copytree(url / "derived/com", url / "derived/half")
    (url / "derived/half/zarr.json").write_text("{")
    lines = [line.split(maxsplit=2) for line in call("info", url).stdout.splitlines() if line.startswith("result ")]
    told = {name: text for _, name, text in lines}
    assert told["com"].startswith("center_of_mass, saved on 20")
    assert told["com"].endswith("com_y (y, x) in 1/angstrom, com_x (y, x) in 1/angstrom, total (y, x) in count")
    assert told["by-hand"].startswith("of unknown origin, saved on 20")
    assert told["half"].startswith("cannot be opened: ")
    found = {one["name"]: one for one in document("info", url)["results"]}
    assert found["com"]["operation"] == "center_of_mass"
    assert found["com"]["variables"]["total"] == {
        "dims": ["y", "x"],
        "shape": [4, 5],
        "dtype": "uint64",
        "units": "count",
    }
    assert found["half"]["problem"] is not None


@pytest.fixture
def unfinished(call, raw, tmp_path, monkeypatch):
    """Convert until the power fails just before the end."""

    def fail(*_args):
        msg = "power"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finalise", fail)
        patch.setattr(StoreWriter, "abort", fail)
        assert call("convert", raw, tmp_path / "a.zarr", "--progress", "none").exit_code == 1
    return tmp_path / "a.zarr"


def test_unfinished_store_is_shown(call, document, unfinished):
    """What a conversion left behind can be looked at, and is called not finished."""
    result = call("info", unfinished)
    assert result.exit_code == 0, result.output
    assert "not finished" in result.stdout
    assert result.stderr.startswith("warning: the conversion to ")
    found = document("info", unfinished)
    assert (found["complete"], found["sizes"]["stored_bytes"]) == (False, None)


def test_frames_that_are_planned_are_not_called_valid(call, raw, tmp_path):
    """Of a conversion that is under way as many frames are told as are written, at first none."""
    assert call("plan", raw, tmp_path / "b.zarr").exit_code == 0
    (line,) = [line for line in call("info", tmp_path / "b.zarr").stdout.splitlines() if line.startswith("frames ")]
    assert re.fullmatch(r"frames +0 of [1-9]\d* written", line)


def test_unfinished_store_is_not_worked_on(call, unfinished):
    """Any other verb refuses it, and the hint leads to the one that finishes it."""
    (working,) = unfinished.parent.glob("a.zarr.part-*")
    result = call("virtual", working, "--disk", "3")
    assert result.exit_code == 3
    assert "'stemstore repair' shows how far it came" in result.stderr


def test_empty_folder_is_exit_3(call, tmp_path):
    """A folder without anything is no store."""
    assert call("info", tmp_path).exit_code == 3


def test_other_zarr_group_is_exit_3(call, tmp_path):
    """A Zarr group of somebody else is not ours to describe."""
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    result = call("info", tmp_path)
    assert result.exit_code == 3
    assert "not a stemstore store" in result.stderr


def test_newer_store_is_exit_3(call, store, tmp_path):
    """A store of a newer release is refused with the reason."""
    shutil.copytree(store, tmp_path / "new.zarr")
    root = tmp_path / "new.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"version": 1', '"version": 99').replace('"version":1', '"version":99'))
    result = call("info", tmp_path / "new.zarr")
    assert result.exit_code == 3
    assert "version 99" in result.stderr

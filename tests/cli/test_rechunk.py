"""The verb ``rechunk``, and the options of ``convert`` that say how a store is cut."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import stemstore
from stemstore.cli import planned, rechunk
from stemstore.cli.verb import Verb


@pytest.fixture
def run():
    """Run the verb in this process."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("rechunk", cls=Verb)(rechunk.run)
    return lambda *args: CliRunner().invoke(app, ["rechunk", *map(str, args)])


def test_rechunk(run, store, frames, tmp_path):
    """The new store has the chunks that were asked for and the same pixels; what was done is told."""
    target = tmp_path / "b.zarr"
    result = run(store, target, "--chunks", "2x2x8x8", "--shards", "4,4", "--profile", "small", "--progress", "none")
    assert result.exit_code == 0, result.output
    assert f"{target} (dense)" in result.stdout
    np.testing.assert_array_equal(stemstore.open(target).intensity.values, frames)
    intensity = json.loads((target / "intensity" / "zarr.json").read_text())
    assert intensity["chunk_grid"]["configuration"]["chunk_shape"] == [4, 4, 16, 16]
    assert intensity["codecs"][0]["configuration"]["chunk_shape"] == [2, 2, 8, 8]
    assert run(store, target, "--progress", "none").exit_code == 4
    again = run(store, target, "--layout", "tiled", "--overwrite", "--resume", "--progress", "none", "--json")
    assert json.loads(again.stdout)["url"] == str(target)


def test_rechunk_dry_run(run, store, tmp_path, capsys):
    """Chunks and shards are shown in words and as JSON, and nothing is written."""
    result = run(store, tmp_path / "b.zarr", "--chunks", "2x2x8x8", "--dry-run")
    assert "chunks 2 x 2 x 8 x 8, shards 4 x 6 x 16 x 16" in result.stdout
    assert "chunks of the source are decoded" not in result.stdout
    found = json.loads(run(store, tmp_path / "b.zarr", "--dry-run", "--json").stdout)
    assert (found["dry_run"], found["layout"]["kind"], found["times_decoded"]) == (True, "dense", 1.0)
    planned.show("rechunk", found | {"times_decoded": 2.5}, as_json=False)
    assert "chunks of the source are decoded 2.5 times on average" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--chunks", "8x8xa"], 2, "give extents such as 8x8x64x64"),
        (["--chunks", "8x8"], 2, "have 2 extents, expected 4"),
        (["--layout", "tiled", "--chunks", "1x1x8x8"], 2, "exclude each other"),
        (["--layout", "cubes"], 2, "cubes"),
        (["--chunks", "1x1x16x16", "--max-memory", "100kB"], 6, "one worker needs"),
    ],
)
def test_rechunk_mistakes(run, store, tmp_path, options, code, message):
    """What cannot be is a usage error, too little memory has its own code, and nothing is left."""
    result = run(store, tmp_path / "b.zarr", *options, "--progress", "none")
    assert result.exit_code == code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_rechunk_in_its_own_place(run, store):
    """The message says how two stores change places."""
    result = run(store, store, "--overwrite")
    assert result.exit_code == 2
    assert "mv scan.zarr old.zarr" in result.stderr


def test_convert_tiled(call, document, raw, frames, tmp_path):
    """Named layouts and chunks can be asked for at once, and plans show them."""
    found = document("convert", raw, tmp_path / "a.zarr", "--layout", "tiled", "--dry-run")
    assert found["layout"]["chunk"] == [4, 8, 16, 16]
    result = call("convert", raw, tmp_path / "a.zarr", "--chunks", "1x5x4x4", "--shards", "2x5", "--progress", "none")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity.values, frames)
    assert len(list((tmp_path / "a.zarr" / "intensity" / "c").rglob("*/0/0/0"))) == 2
    count = ["--count", "--background-threshold", "1.5", "--xray-threshold", "100", "--dry-run"]
    counted = document("convert", raw, tmp_path / "b.zarr", "--chunks", "3", "--shards", "9", *count)
    assert (counted["layout"]["frames_per_block"], counted["layout"]["blocks_per_shard"]) == (3, 3)
    assert call("convert", raw, tmp_path / "b.zarr", "--chunks", "1x1x4x4", *count).exit_code == 2

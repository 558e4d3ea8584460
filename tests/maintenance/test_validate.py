"""Validation tells a store that is whole from one that is not, and says where."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError, NotFoundError, UnknownFormatError
from stemstore.maintenance.validate import validate

CALIBRATION = {
    "beam_energy": 300,
    "semi_convergence_angle": 2.0,
    "scan_rotation": 5.0,
    "scan_step": 0.5,
    "detector_step": "1 mrad",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dense and a counted store of the same frames, with everything that is wanted stated."""
    folder = tmp_path_factory.mktemp("validate")
    frames = np.random.default_rng(2).poisson(0.05, (6, 5, 12, 16)).astype(np.uint16) * 20
    np.save(folder / "raw.npy", frames)
    for name, count in (("dense", False), ("counted", True)):
        limits = {"background_threshold": 10.0, "xray_threshold": 500.0} if count else {}
        stemstore.convert(folder / "raw.npy", folder / f"{name}.zarr", count=count, **limits, **CALIBRATION)
    return folder


@pytest.fixture(params=["dense", "counted"])
def store(request, made, tmp_path):
    """Copy one of them for a test that harms it."""
    return Path(shutil.copytree(made / f"{request.param}.zarr", tmp_path / "a.zarr"))


def keys(validation):
    """What the errors are about."""
    return {finding.key for finding in validation.errors}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("profile", ["core", "web"])
def test_finished_stores_are_valid(store, deep, profile):
    """What a conversion wrote has neither errors nor warnings where all is stated."""
    found = validate(store, deep=deep, profile=profile)
    assert (found.valid, found.findings, found.deep) == (True, [], deep)


def big(path):
    """Tell shards of the data from the objects of small arrays."""
    return "intensity" in path.parts or "gap" in path.parts


def data(store):
    """Give all objects of pixels or events."""
    return sorted(path for path in store.rglob("*") if path.is_file() and big(path) and path.name != "zarr.json")


def test_a_shard_that_is_gone_is_named_without_reading_any(store):
    """The key of the missing object is among the errors."""
    victim = data(store)[0]
    victim.unlink()
    assert victim.relative_to(store).as_posix() in keys(validate(store))


def test_a_flipped_bit_needs_a_deep_look(store):
    """Names and sizes are right, so that only the checksums tell; the shard is named."""
    victim = data(store)[0]
    body = bytearray(victim.read_bytes())
    body[len(body) // 3] ^= 4
    victim.write_bytes(bytes(body))
    assert validate(store).valid
    assert victim.relative_to(store).as_posix() in keys(validate(store, deep=True))


def test_a_shortened_shard_is_seen_by_its_size(store):
    """The commit object knows the number of bytes."""
    victim = data(store)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    assert keys(validate(store)) == {"stemstore.commit.json"}


def test_damaged_small_arrays_are_named(store):
    """Coordinates and images of the summary have checksums of their own."""
    for name in ("kx/c/0", "summary/total/c/0/0"):
        body = bytearray((store / name).read_bytes())
        body[5] ^= 1
        (store / name).write_bytes(bytes(body))
    assert keys(validate(store)) == {"kx", "summary/total"}


def edited(store, change):
    """Change the document of a store."""
    path = store / "zarr.json"
    root = json.loads(path.read_text())
    change(root["attributes"]["stemstore"])
    path.write_text(json.dumps(root))


def test_metadata_that_do_not_fit_the_arrays(store):
    """Another step makes other coordinates; the digest of the metadata differs as well."""
    edited(store, lambda document: document["axes"][3].update(step=2.0))
    assert keys(validate(store)) == {"kx", "stemstore.commit.json"}


def test_metadata_that_nobody_can_read(store):
    """A document that does not even open is one error, and no exception."""
    edited(store, lambda document: document["axes"].pop())
    found = validate(store)
    assert not found.valid
    assert len(found.findings) == 1


def test_a_number_of_electrons_that_is_wrong(made, tmp_path):
    """The summary knows better than the document."""
    store = Path(shutil.copytree(made / "counted.zarr", tmp_path / "a.zarr"))
    edited(store, lambda document: document["counting"].update(n_events=document["counting"]["n_events"] + 1))
    assert "summary/total" in keys(validate(store))


def test_a_store_that_was_never_finished(store):
    """Without its commit object a store is not valid."""
    (store / "stemstore.commit.json").unlink()
    found = validate(store)
    assert [finding.severity for finding in found.findings] == ["error"]


def test_what_is_missing_is_a_warning(made, tmp_path):
    """A scan without calibration is valid, and every gap is named."""
    stemstore.convert(made / "raw.npy", tmp_path / "a.zarr")
    found = validate(tmp_path / "a.zarr")
    assert found.valid
    named = {finding.key for finding in found.warnings}
    assert named == {
        *(f"axes.{name}" for name in ("y", "x", "ky", "kx")),
        *(f"acquisition.{name}" for name in ("beam_energy", "semi_convergence_angle", "scan_rotation")),
    }


def test_damaged_results_and_what_killed_writers_left(store):
    """A result that cannot be opened is an error, a part folder a warning."""
    ds = stemstore.open(store)
    stemstore.save(stemstore.mean_pattern(ds), store, "mean")
    assert validate(store, deep=True).findings == []
    (store / "derived" / "mean" / "zarr.json").write_text("{}")
    (store / "derived" / ".part-1").mkdir()
    found = validate(store)
    assert keys(found) == {"derived/mean"}
    assert [finding.key for finding in found.warnings] == ["derived/.part-1"]


def test_a_calibration_without_any_value(store):
    """An origin that is nowhere known is an error."""
    ds = stemstore.open(store)
    nowhere = ds.assign_coords(
        origin_ky=(("y", "x"), np.full((6, 5), np.nan)), origin_kx=(("y", "x"), np.full((6, 5), 3.0))
    )
    stemstore.save_calibration(nowhere)
    assert keys(validate(store)) == {"calibration/origin_ky"}


def test_a_store_that_browsers_find_hard(store):
    """Coarse frames for a quick look are wanted by the profile 'web' alone."""
    path = store / "zarr.json"
    root = json.loads(path.read_text())
    del root["consolidated_metadata"]["metadata"]["summary/binned"]
    path.write_text(json.dumps(root))
    assert keys(validate(store)) == {"stemstore.commit.json"}
    assert keys(validate(store, profile="web")) == {"stemstore.commit.json", "summary/binned"}


def test_places_without_a_store(tmp_path):
    """Nothing, something else and unknown profiles are typed errors."""
    with pytest.raises(NotFoundError, match="nowhere"):
        validate(tmp_path / "nowhere.zarr")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises((NotFoundError, UnknownFormatError)):
        validate(tmp_path / "a.npy")
    with pytest.raises(InputError, match="choose 'core' or 'web'"):
        validate(tmp_path, profile="print")

"""From a saved strain map back to the bytes of the detector: by the histories, and by what other programs read."""

import hashlib

import numpy as np
import pytest

import stemstore
from stemstore.maintenance.crate import crate
from stemstore.ops.saved.results import describe_result
from stemstore.store.commit import read_commit
from stemstore.store.open import open_store
from stemstore.testing import make_scan

OPTIONS = {"flyback_columns": 1, "beam_energy": "300 keV", "scan_step": "0.5 nm", "detector_step": "0.044 mrad"}
STEPS = ["find_disks", "calibrate_disks", "fit_lattice", "strain_map", "save"]


@pytest.fixture(scope="module", params=["counted", "dense"])
def folder(request, tmp_path_factory):
    """Sector files, a store of them, its disks, and the strain map that was made from the disks as they were saved."""
    path, counted = tmp_path_factory.mktemp("strain"), request.param == "counted"
    truth = make_scan(path / "scan_42", scan_shape=(3, 4), dose=4000, seed=3)
    store = path / "scan_42.zarr"
    stemstore.convert(path / "scan_42", store, count=counted, digests="sha256", **OPTIONS)
    dark = None if counted else np.full((576, 576), truth.parameters["camera"]["pedestal"])
    stemstore.find_disks(stemstore.open(store), radius=43, dark=dark, store=store)
    vectors = stemstore.calibrate_disks(stemstore.open_result(store, "disks"), axes="scan", rotation=0)
    strain = stemstore.strain_map(stemstore.fit_lattice(vectors, stemstore.find_basis(vectors)))
    assert np.abs(strain.e_yy).max() < 0.05
    stemstore.save(strain, store, "strain")
    return path


@pytest.fixture
def digests(folder):
    """SHA-256 of the sector files by their names, as any program finds them."""
    return {
        path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in (folder / "scan_42").glob("*.data")
    }


def test_the_histories_lead_to_the_sector_files(folder, digests):
    """The opened strain map names its scan, its document the store by digest, and the store's history the files."""
    store = folder / "scan_42.zarr"
    opened, scan = stemstore.open_result(store, "strain"), open_store(store)
    assert opened.attrs["stemstore_uuid"] == scan.uuid
    assert [line.partition("(")[0] for line in opened.attrs["history"].splitlines()] == STEPS[:-1]
    document = describe_result(store, "strain")
    assert [entry.operation for entry in document.history] == STEPS
    assert document.history[0].parameters["radius"] == 43
    assert document.history[2].parameters["unit"] == "1/angstrom"
    (source,) = document.history[-1].inputs
    assert (source.uuid, source.digest) == (scan.uuid, read_commit(scan.head.storage).shards_digest)
    (conversion,) = scan.document.history
    assert {file.path.rpartition("/")[2]: file.digest for file in conversion.inputs} == digests
    assert len(digests) == 8


def test_prov_walks_from_the_strain_map_to_the_sector_files(folder, digests, tmp_path):
    """What the map was derived from, and from step to step who made it and used what, both end at the files."""
    prov = pytest.importorskip("prov.model", reason="prov reads PROV-JSON; it comes with the extra 'test'")
    written = crate(folder / "scan_42.zarr", tmp_path, format="prov-json")
    document = prov.ProvDocument.deserialize(written, format="json")

    def pairs(kind, *ends):
        rows = document.get_records(getattr(prov, kind))
        return [tuple(str(next(iter(row.get_attribute(f"prov:{end}")))) for end in ends) for row in rows]

    def walk(edges):
        found, front = set(), {f"uuid:{describe_result(folder / 'scan_42.zarr', 'strain').uuid}"}
        while front:
            found |= front
            front = {end for start, end in edges if start in front} - found
        return found

    entities = {str(one.identifier): one for one in document.get_records(prov.ProvEntity)}
    derived = walk(pairs("ProvDerivation", "generatedEntity", "usedEntity"))
    by_steps = walk(
        pairs("ProvGeneration", "entity", "activity")
        + pairs("ProvUsage", "activity", "entity")
        + pairs("ProvCommunication", "informed", "informant")
    )
    for found in (derived, by_steps):
        files = [one for key, one in entities.items() if key in found and key.startswith("file:")]
        told = {value(one, "prov:label"): value(one, "stemstore:digest") for one in files}
        assert told == digests
    done = {
        value(one, "prov:label") for one in document.get_records(prov.ProvActivity) if str(one.identifier) in by_steps
    }
    assert done == {"convert", *STEPS}


def value(record, name):
    """Give the one value of an attribute."""
    return str(next(iter(record.get_attribute(name))))


def test_a_crate_leads_from_the_strain_map_to_the_sector_files(folder, digests, tmp_path):
    """The run that saved the map took the store as its object, and the run whose result is the store took the files."""
    rocrate = pytest.importorskip("rocrate.rocrate", reason="rocrate reads RO-Crates; it comes with the extra 'test'")
    (tmp_path / "scan_42.zarr").symlink_to(folder / "scan_42.zarr", target_is_directory=True)
    crate(tmp_path / "scan_42.zarr", tmp_path)
    opened = rocrate.ROCrate(tmp_path)
    runs = opened.root_dataset["mentions"]

    def made(thing):
        return [run for run in runs if thing in (run["result"] if isinstance(run["result"], list) else [run["result"]])]

    steps = made(opened.get("scan_42.zarr/derived/strain/"))
    assert sorted(run["name"] for run in steps) == sorted(STEPS)
    for run in steps:
        assert opened.get("scan_42.zarr/") in run["object"]
    (conversion,) = made(opened.get("scan_42.zarr/"))
    files = [one for one in conversion["object"] if one.type == "File"]
    assert {one["name"]: f"sha256:{one['sha256']}" for one in files} == digests

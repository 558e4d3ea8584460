"""What other programs learn about the origin of a store: read back by the libraries of both formats."""

import hashlib
import json
import shutil

import numpy as np
import pytest

import stemstore
from stemstore.errors import DestinationExistsError, InputError, NotFoundError
from stemstore.maintenance.crate import crate, describe_crate
from stemstore.maintenance.lineage import trace
from stemstore.maintenance.prov_json import prov_document
from stemstore.maintenance.ro_crate import crate_document
from stemstore.store.commit import read_commit
from stemstore.store.open import open_store
from stemstore_schemas import HistoryEntry, SourceFile

TIME = "2026-03-01T10:00:00+00:00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder with spaces in its name: two raw files, a store of them with a result, and a store of that."""
    path = tmp_path_factory.mktemp("crate") / "scans of today"
    path.mkdir()
    frames = np.random.default_rng(3).poisson(1, (4, 5, 8, 8)).astype("<u2")
    for number, part in enumerate(np.split(frames, 2)):
        part.tofile(path / f"part {number}.raw")
    raw = [path / "part 0.raw", path / "part 1.raw"]
    options = {"reader": "raw_binary", "dtype": "uint16", "shape": (4, 5, 8, 8), "digests": "sha256"}
    stemstore.convert(raw, path / "a.zarr", count=False, scan_step=0.5, **options)
    ds = stemstore.open(path / "a.zarr")
    stemstore.save(stemstore.center_of_mass(ds), ds, "com", parameters={"why": "test"})
    stemstore.convert(path / "a.zarr", path / "b.zarr", count=False)
    return path


def sha256(path):
    """Digest of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def rocrate():
    """Give the library for RO-Crates."""
    return pytest.importorskip("rocrate.rocrate", reason="rocrate reads RO-Crates; it comes with the extra 'test'")


@pytest.fixture
def prov():
    """Give the library for PROV documents."""
    return pytest.importorskip("prov.model", reason="prov reads PROV-JSON; it comes with the extra 'test'")


@pytest.fixture
def read(rocrate, folder, tmp_path):
    """Write the crate of a store beside it, and open it by the library."""

    def run(name, **options):
        shutil.copytree(folder, tmp_path / "copy")
        written = crate(tmp_path / "copy" / name, tmp_path / "copy", **options)
        assert written == str(tmp_path / "copy" / "ro-crate-metadata.json")
        return rocrate.ROCrate(tmp_path / "copy")

    return run


def listed(value):
    """Give values as a list, whether there are several, one or none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def test_a_crate_names_profile_and_parts(read):
    """The root says what it is, when the store was finished, and leads to everything that is described."""
    opened = read("a.zarr", licence="https://spdx.org/licenses/CC-BY-4.0")
    root = opened.root_dataset
    assert [one.id for one in listed(root["conformsTo"])] == ["https://w3id.org/ro/wfrun/process/0.5"]
    assert root["license"].id == "https://spdx.org/licenses/CC-BY-4.0"
    assert opened.version == "1.1"
    store = opened.get("a.zarr/")
    assert store.type == "Dataset"
    assert "urn:uuid:" + stemstore.open(str(opened.source / "a.zarr")).attrs["stemstore_uuid"] in store["identifier"]
    assert [one.id for one in listed(store["hasPart"])] == ["a.zarr/derived/com/"]
    assert {one.id for one in opened.data_entities} >= {"a.zarr/", "a.zarr/derived/com/"}


def test_a_crate_leads_from_the_result_to_the_digests_of_the_raw_files(read, folder):
    """The run that saved the result read the store, and the run that made the store read the files."""
    opened = read("a.zarr")
    runs = listed(opened.root_dataset["mentions"])
    assert {one.type for one in runs} == {"CreateAction"}
    (saving,) = [one for one in runs if one["name"] == "save"]
    assert saving["result"].id == "a.zarr/derived/com/"
    read_by = [one for one in listed(saving["object"]) if one.type == "Dataset"]
    (conversion,) = [one for one in runs if listed(one["result"]) == read_by]
    files = [one for one in listed(conversion["object"]) if one.type == "File"]
    assert {one["name"]: one["sha256"] for one in files} == {
        path.name: sha256(path) for path in folder.glob("part*.raw")
    }
    values = {one["name"]: one["value"] for one in listed(conversion["object"]) if one.type == "PropertyValue"}
    assert (values["count"], values["scan_step"]) == (False, 0.5)
    software = {one["name"]: one["version"] for one in listed(conversion["instrument"])}
    assert software["stemstore"] == stemstore.__version__
    (computed,) = [one for one in runs if one["name"].startswith("center_of_mass")]
    assert computed["result"].id == "a.zarr/derived/com/"


def test_every_reference_of_a_crate_has_its_entity(folder):
    """The graph is closed: what is named is described, once, and all files hang below the root."""
    document = describe_crate(folder / "b.zarr", folder)
    described = [entity["@id"] for entity in document["@graph"]]
    assert len(described) == len(set(described))

    def references(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else ()
            for one in value.values():
                yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    named = set(references(document["@graph"]))
    assert {name for name in named if not name.startswith(("https://w3id.org/ro/crate", "http://schema.org"))} <= set(
        described
    )
    parts = {one for entity in document["@graph"] for one in references(entity.get("hasPart"))}
    data = {entity["@id"] for entity in document["@graph"] if entity["@type"] in ("File", "Dataset")}
    assert data - parts == {"./"}


def test_a_crate_is_the_same_each_time(folder, tmp_path):
    """It holds nothing but what the store says; what lies elsewhere has its URI."""
    first, second = (describe_crate(folder / "a.zarr", folder) for _ in range(2))
    assert first == second
    elsewhere = describe_crate(folder / "a.zarr", tmp_path)
    assert (folder / "a.zarr").as_uri() + "/" in [entity["@id"] for entity in elsewhere["@graph"]]


def test_prov_leads_from_the_newest_store_to_the_raw_files(prov, folder, tmp_path):
    """Derivations, followed to their end, are the raw files with the digests that they have."""
    written = crate(folder / "b.zarr", tmp_path, format="prov-json")
    document = prov.ProvDocument.deserialize(written, format="json")
    uuid = stemstore.open(folder / "b.zarr").attrs["stemstore_uuid"]
    ends = ("prov:generatedEntity", "prov:usedEntity")
    derived = document.get_records(prov.ProvDerivation)
    pairs = [[str(next(iter(one.get_attribute(end)))) for end in ends] for one in derived]
    found = {f"uuid:{uuid}"}
    while more := {used for made, used in pairs if made in found} - found:
        found |= more
    files = [one for one in document.get_records(prov.ProvEntity) if str(one.identifier) in found]
    digests = {str(value) for one in files for value in one.get_attribute("stemstore:digest")}
    assert digests >= {f"sha256:{sha256(path)}" for path in folder.glob("part*.raw")}


def test_prov_tells_who_used_and_made_what(prov, folder, tmp_path):
    """The saving used the store, made the result, and was told by the operation; each has its programs."""
    document = prov.ProvDocument.deserialize(crate(folder / "a.zarr", tmp_path, format="prov-json"), format="json")
    counts = {kind: len(list(document.get_records(getattr(prov, f"Prov{kind}")))) for kind in
              ("Activity", "Generation", "Usage", "Communication")}  # fmt: skip
    assert counts == {"Activity": 3, "Generation": 2, "Usage": 4, "Communication": 1}
    names = {str(value) for one in document.get_records(prov.ProvAgent) for value in one.get_attribute("prov:label")}
    assert f"stemstore {stemstore.__version__}" in names
    (conversion,) = [
        one for one in document.get_records(prov.ProvActivity) if "convert" in map(str, one.get_attribute("prov:label"))
    ]
    assert conversion.get_startTime() is not None
    assert list(conversion.get_attribute("parameter:scan_step")) == [0.5]
    assert json.loads(document.serialize(format="json"))


def traced(folder, entries):
    """Trace what a store would come from if it told these operations."""
    scan = open_store(folder / "a.zarr")
    return trace(scan.url, scan.document.model_copy(update={"history": entries}), read_commit(scan.head.storage))


def test_a_changed_store_is_a_state_of_itself(folder):
    """What an edit changed existed before: in PROV as a state of its own, in a crate as an update of one data set."""
    raw = SourceFile(path="/data/scan.raw", size=9)
    edit = HistoryEntry(operation="edit", parameters={"by": None}, time=TIME, agent="A. Person")
    found = traced(folder, [HistoryEntry(operation="convert", inputs=[raw], time=TIME, wall_seconds=90), edit])
    first, second = found.steps.values()
    assert first.ended == "2026-03-01T10:01:30+00:00"
    assert first.made == second.used == [f"{found.store}/before-1"]
    assert second.made == [found.store]
    document = crate_document(found, folder)
    (update,) = [entity for entity in document["@graph"] if entity["@type"] == "UpdateAction"]
    assert update["result"] == {"@id": "a.zarr/"}
    assert update["agent"] == {"@id": "#agent/A.%20Person"}
    assert update["instrument"] == {"@id": "#software-not-recorded"}
    told = prov_document(found)
    assert len(told["specializationOf"]) == 1
    assert [one["prov:label"] for one in told["agent"].values()] == ["A. Person"]


def test_two_contents_of_one_name_stay_apart(folder):
    """A file that was written anew between two operations is two things."""
    dark = [SourceFile(path="/data/dark.npy", size=9, digest=f"crc32c:0000000{n}") for n in (1, 2)]
    found = traced(folder, [HistoryEntry(operation="convert", inputs=[one], time=TIME) for one in dark])
    files = [entity for entity in crate_document(found, folder)["@graph"] if entity["@type"] == "File"]
    assert [one["identifier"] for one in files] == ["crc32c:00000001", "crc32c:00000002"]
    assert len({one["@id"] for one in files}) == 2


def test_two_stores_at_one_place_stay_apart(folder):
    """A store that lay where this one lies now is another data set."""
    other = SourceFile(path=str(folder / "a.zarr"), size=9, uuid="4c8f1c9e-0b0c-4f3f-8f11-1a2b3c4d5e6f")
    found = traced(folder, [HistoryEntry(operation="convert", inputs=[other], time=TIME)])
    document = crate_document(found, folder)
    names = {entity["@id"]: entity for entity in document["@graph"]}
    assert other.uuid in names[f"a.zarr/#uuid:{other.uuid}"]["identifier"]
    (run,) = [entity for entity in document["@graph"] if entity["@type"] == "CreateAction"]
    assert (run["object"], run["result"]) == ({"@id": f"a.zarr/#uuid:{other.uuid}"}, {"@id": "a.zarr/"})


def test_a_store_without_a_history_is_described(folder):
    """Nothing empty is written where there is nothing to tell."""
    document = crate_document(traced(folder, []), folder)
    assert not [name for entity in document["@graph"] for name, value in entity.items() if value in ([], None, "")]
    assert set(prov_document(traced(folder, []))) == {"prefix", "entity", "activity"}


def test_a_store_on_a_server_keeps_its_address(folder, tmp_path):
    """Addresses are URIs already, but for letters that these do not have."""
    scan = open_store(folder / "a.zarr")
    found = trace("s3://bucket/scan 4.zarr", scan.document, read_commit(scan.head.storage))
    assert "s3://bucket/scan%204.zarr/" in [entity["@id"] for entity in crate_document(found, tmp_path)["@graph"]]


def test_nothing_is_overwritten_and_nothing_put_into_stores(folder, tmp_path):
    """Places that are taken, do not exist or belong to a store are refused."""
    crate(folder / "a.zarr", tmp_path)
    with pytest.raises(DestinationExistsError, match="pass overwrite=True"):
        crate(folder / "a.zarr", tmp_path)
    assert crate(folder / "a.zarr", tmp_path, overwrite=True).endswith("ro-crate-metadata.json")
    assert [path.name for path in tmp_path.iterdir()] == ["ro-crate-metadata.json"]
    with pytest.raises(InputError, match="is a store"):
        crate(folder / "a.zarr", folder / "a.zarr")
    with pytest.raises(NotFoundError, match="make it first"):
        crate(folder / "a.zarr", tmp_path / "no" / "ro-crate-metadata.json")
    with pytest.raises(InputError, match="give the folder"):
        crate(folder / "a.zarr", tmp_path / "mine.json")
    with pytest.raises(InputError, match="choose 'ro-crate' or 'prov-json'"):
        crate(folder / "a.zarr", tmp_path, format="turtle")
    with pytest.raises(InputError, match="give a URI"):
        crate(folder / "a.zarr", tmp_path, licence="mine", overwrite=True)
    with pytest.raises(InputError, match="write the file locally"):
        crate(folder / "a.zarr", "s3://bucket/crate")

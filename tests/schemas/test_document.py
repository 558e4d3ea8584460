"""Documents: round trip, versions, unknown keys."""

import json
import pickle
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stemstore_schemas import (
    DIMS,
    Acquisition,
    Axis,
    CommitDocument,
    CountingDescription,
    CountingReference,
    CountingRegion,
    Detector,
    DocumentError,
    EventEncoding,
    FrameCounts,
    HistoryEntry,
    Quantity,
    ScanDocument,
    SchemaVersionError,
    Sector,
    SourceFile,
    SourceMetadata,
    dump_document,
    load_commit,
    load_document,
)

TIME = "2024-05-17T09:30:00+00:00"
UUID = "0b7c6f3e-7a1d-4f0e-9c6a-2f6d5b1a9e10"
SOURCES = st.sampled_from(["measured", "header", "user", "guessed"])
NAMES = st.text(string.ascii_letters, min_size=1, max_size=5)
SIZES = st.integers(1, 10**6)
COUNTS = st.integers(0, 10**12)
FREE = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


def quantities(*units):
    floats = st.floats()
    return st.builds(
        Quantity, value=floats, unit=st.sampled_from(units), source=SOURCES, uncertainty=st.none() | floats
    )


def maybe(strategy):
    return st.none() | strategy


STEPS = st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9)


def axis(name):
    return st.builds(
        Axis,
        name=st.just(name),
        size=SIZES,
        unit=st.sampled_from(["nm", "mrad", "1/angstrom", "pixel", "s"]),
        step=STEPS,
        origin=st.floats(-1e9, 1e9),
        source=SOURCES,
    ) | st.builds(Axis, name=st.just(name), size=SIZES)


ACQUISITIONS = st.builds(
    Acquisition,
    beam_energy=maybe(quantities("keV")),
    semi_convergence_angle=maybe(quantities("mrad")),
    camera_length=maybe(quantities("mm")),
    dwell_time=maybe(quantities("s")),
    scan_rotation=maybe(quantities("deg")),
    magnification=maybe(st.floats()),
    scan_shape_alternatives=st.lists(st.tuples(SIZES, SIZES), max_size=2),
    start_time=maybe(st.just("2024-05-17T09:30:00")),
    scan_number=maybe(st.integers(0, 10**6)),
    operator=maybe(st.text(max_size=9)),
) | st.builds(Acquisition, scan_shape=st.tuples(SIZES, SIZES), scan_shape_source=SOURCES)
DETECTORS = st.builds(
    Detector,
    name=maybe(st.text(max_size=9)),
    shape=maybe(st.tuples(st.integers(9, 4096), st.integers(9, 4096))),
    pixel_size=maybe(st.tuples(quantities("mm"), quantities("nm"))),
    sectors=maybe(NAMES).map(lambda n: [Sector(name=n, rows=(0, 9), columns=(2, 4))] if n else []),
    flip=maybe(st.tuples(st.booleans(), st.booleans())),
    thresholds=st.lists(quantities("keV"), max_size=2),
    mask=maybe(NAMES),
)
EDGES = st.tuples(st.integers(0, 9), st.integers(10, 4096))
REGIONS = st.builds(
    CountingRegion,
    name=NAMES,
    rows=EDGES,
    columns=EDGES,
    background_threshold=st.floats(),
    cut=maybe(st.integers()),
    xray_threshold=st.floats(),
    pedestal_mean=maybe(st.floats()),
    drift=maybe(st.floats()),
)
REFERENCES = st.builds(CountingReference, array=NAMES, digest=NAMES, origin=NAMES)
COUNTING = st.builds(
    CountingDescription,
    regions=st.lists(REGIONS, max_size=2),
    dark=maybe(REFERENCES),
    row_dark=maybe(st.sampled_from(["none", "mean", "median"])),
    drift=maybe(st.floats()),
    rule=st.sampled_from(["stemstore", "stempy", "foreign"]),
    background_threshold=maybe(st.lists(st.floats(), max_size=4)),
    xray_threshold=maybe(st.floats()),
    n_events=maybe(COUNTS),
    false_events_per_frame=maybe(st.floats()),
)
FILES = st.builds(SourceFile, path=st.text(min_size=1, max_size=9), size=COUNTS, mtime=maybe(st.just(TIME)))
HISTORY = st.builds(
    HistoryEntry,
    operation=NAMES,
    parameters=FREE,
    inputs=st.lists(FILES, max_size=2),
    software=st.dictionaries(NAMES, st.text(max_size=5), max_size=2),
    time=st.just(TIME),
    warnings=st.lists(st.text(max_size=9), max_size=2),
    seed=maybe(st.integers(0, 2**64)),
)
DENSE = {"profile": st.just("dense"), "encoding": st.none()}
COUNTED = {
    "profile": st.just("counted"),
    "encoding": st.builds(EventEncoding, frames_per_block=SIZES, slots_per_chunk=SIZES),
}


def scans(layout):
    return st.builds(
        ScanDocument,
        uuid=st.uuids().map(str),
        axes=st.tuples(*map(axis, DIMS)).map(list),
        acquisition=ACQUISITIONS,
        detector=DETECTORS,
        counting=maybe(COUNTING),
        frames=st.builds(FrameCounts, valid=COUNTS, partial=COUNTS, missing=COUNTS),
        history=st.lists(HISTORY, max_size=2),
        vendor=FREE,
        **layout,
    )


def small_scan(**changes):
    axes = [Axis(name=name, size=2) for name in DIMS]
    return ScanDocument(**{"uuid": UUID, "profile": "dense", "axes": axes, "frames": FrameCounts(valid=4), **changes})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scans(DENSE) | scans(COUNTED))
def test_scan_documents_survive_json(document):
    """Metadata, JSON text, metadata again: nothing changes, NaN and infinity included."""
    text = json.dumps(dump_document(document), allow_nan=False)
    assert repr(load_document(json.loads(text))) == repr(document)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACQUISITIONS, DETECTORS, FREE, st.lists(FILES, max_size=2), maybe(COUNTING))
def test_source_metadata_survive_json(acquisition, detector, vendor, files, counting):
    """What a reader reports can be sent as JSON."""
    found = SourceMetadata(acquisition=acquisition, detector=detector, vendor=vendor, files=files, counting=counting)
    assert repr(SourceMetadata.model_validate_json(found.model_dump_json())) == repr(found)


def test_commit_documents_survive_json():
    """The commit document is read back as written."""
    commit = CommitDocument(
        uuid=UUID, n_shards=3, n_bytes=99, metadata_digest="blake2b:00", shards_digest="blake2b:01", time=TIME
    )
    assert load_commit(json.loads(json.dumps(dump_document(commit)))) == commit


def test_a_written_document_names_kind_and_version():
    """Whoever finds the document can tell what it is."""
    document = dump_document(small_scan())
    assert (document["kind"], document["version"]) == ("stemstore.scan", 1)


@pytest.mark.parametrize(
    "place",
    [(), ("axes", 0), ("acquisition",), ("detector",), ("frames",)],
    ids=lambda place: ".".join(map(str, place)),
)
def test_unknown_keys_are_refused(place):
    """A key that is not ours is refused wherever it stands, and named."""
    document = dump_document(small_scan())
    part = document
    for key in place:
        part = part[key]
    part["colour"] = "blue"
    with pytest.raises(ValidationError, match=r"colour\n  Extra inputs are not permitted"):
        load_document(document)


def test_vendor_keys_are_free():
    """The vendor's header may say anything."""
    document = dump_document(small_scan())
    document["vendor"] = {"colour": {"blue": [1, None, "x"]}}
    assert load_document(document).vendor == {"colour": {"blue": [1, None, "x"]}}


def test_newer_versions_are_refused():
    """A document from the future names its version and ours, before anything else is looked at."""
    document = {"kind": "stemstore.scan", "version": 2, "colour": "blue"}
    with pytest.raises(
        SchemaVersionError, match="has version 2, this release reads version 1; install a newer"
    ) as caught:
        load_document(document)
    assert (caught.value.found, caught.value.known) == (2, (1,))


@pytest.mark.parametrize("version", [None, "1", True, 0, 1.0])
def test_versions_that_are_none_are_refused(version):
    """Only the integer itself is a version."""
    with pytest.raises(SchemaVersionError, match="the document is damaged or not ours"):
        load_document({**dump_document(small_scan()), "version": version})


def test_other_kinds_are_refused():
    """A commit document is no scan document and the other way round."""
    with pytest.raises(DocumentError, match=r"kind 'stemstore.scan', expected 'stemstore.commit'"):
        load_commit(dump_document(small_scan()))
    with pytest.raises(DocumentError, match=r"kind None, expected 'stemstore.scan'"):
        load_document({})


def test_errors_cross_processes():
    """The versions survive pickling."""
    error = pickle.loads(pickle.dumps(SchemaVersionError("new", 2, (1,))))  # our own object, made on this line
    assert (type(error), str(error), error.found, error.known) == (SchemaVersionError, "new", 2, (1,))


def test_profile_and_encoding_agree():
    """A counted scan has an encoding, a dense one has none."""
    encoding = EventEncoding(frames_per_block=2, slots_per_chunk=8)
    assert small_scan(profile="counted", encoding=encoding).encoding.kind == "gap-u16"
    with pytest.raises(ValidationError, match="profile is 'counted' with no encoding"):
        small_scan(profile="counted")
    with pytest.raises(ValidationError, match="profile is 'dense' with the encoding 'gap-u16'"):
        small_scan(encoding=encoding)


def test_documents_need_axes_in_order_and_a_real_uuid():
    """Axes and identity are checked where they enter."""
    with pytest.raises(ValidationError, match="expected each name once, scan axes first"):
        small_scan(axes=[Axis(name="y", size=2)])
    with pytest.raises(ValidationError, match=r"uuid 'x' is not one; make it with str\(uuid.uuid4\(\)\)"):
        small_scan(uuid="x")


def test_shape_and_totals():
    """Extents come from the axes, frame counts add up."""
    assert small_scan().shape == (2, 2, 2, 2)
    assert FrameCounts(valid=5, partial=2, missing=1).total == 8

"""Timepix3 streams: every bit of a packet, clocks that wrap, edges that repeat or lack, hits laid over the scan."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from encode_tpx3 import CLOCK, TICK, chunk, edge, global_time, hit, lines, write
from evidence import damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import InputError, StemStoreError
from stemstore.kernels import tpx3
from stemstore.testing import ReaderTests
from stemstore_readers.tpx3 import Tpx3
from stemstore_readers.tpx3_edges import of_kind
from stemstore_readers.tpx3_stream import build_index

SECOND = round(1 / tpx3.UNIT)
DWELL, PERIOD = 600 * CLOCK, 4000 * CLOCK  # 15 us and 100 us
LINE = {"trigger": "line", "edge": "tdc1_rising", "dwell_time": "15 us"}


def decode(words):
    """Hits of a stream as the table of the kernel."""
    words = np.array(words, np.uint64)
    chunks, hits = np.empty((len(words) + 1, 3), np.int64), np.empty((len(words), 5), np.int64)
    found, *_ = tpx3.find_chunks(words, 0, 0, 0, chunks)
    return hits[: tpx3.decode(words, chunks[:found], hits)]


def random_hits(scan_shape, count, chips=1, seed=0):
    """Hits anywhere in a scan, also twice in a pixel."""
    random = np.random.default_rng(seed)
    at = np.sort(random.integers(0, np.prod(scan_shape), count))
    columns, rows = random.integers(0, 256, (2, count))
    late = random.integers(0, (DWELL - 10) // TICK, count) * TICK
    hits = list(zip(at, random.integers(0, chips, count), columns, rows, late, strict=True))
    return [tuple(map(int, one)) for one in [*hits, hits[-1]]]


def truth_of(scan_shape, hits, chips=1):
    """Count the hits of every position, chips one below the other."""
    frames = np.zeros((np.prod(scan_shape), 256 * chips, 256), np.int64)
    for at, chip, column, row, _ in hits:
        frames[at, 256 * chip + row, column] += 1
    return frames.reshape(*scan_shape, 256 * chips, 256)


class TestConformance(ReaderTests):
    """The shared tests on pixels that begin with an edge each; the last word is the edge of an empty position."""

    reader_cls = Tpx3

    def make_file(self, tmp_path):
        hits, words = random_hits((2, 3), 40)[:-1], []
        hits = [one for one in hits if one[0] < 5]
        for at in range(6):
            begin = at * PERIOD
            mine = [
                hit(column, row, begin + late // TICK * TICK) for where, _, column, row, late in hits if where == at
            ]
            words += chunk(0, [edge("tdc2_falling", 3 + 2 * at, begin), *mine])
        options = {"scan_shape": (2, 3), "trigger": "pixel", "edge": "tdc2_falling"}
        return str(write(tmp_path / "a.tpx3", words)), truth_of((2, 3), hits), options


class TestConformanceLines(ReaderTests):
    """The shared tests on lines of a detector of two chips, laid over the scan; tpx3awkward has no scans."""

    reader_cls = Tpx3

    def make_file(self, tmp_path):
        hits = random_hits((4, 5), 200, chips=2)
        words = lines((4, 5), hits, dwell=DWELL, period=PERIOD, chips=2)
        return str(write(tmp_path / "a.tpx3", words)), truth_of((4, 5), hits, 2), LINE | {"scan_shape": (4, 5)}

    def test_cut_by_one_byte(self, tmp_path):
        """A stream that lost a byte opens with warnings and loses its last packet only."""
        url, truth, options = self.make_file(tmp_path)
        content = (tmp_path / "a.tpx3").read_bytes()
        (tmp_path / "a.tpx3").write_bytes(content[:-1])
        source = Tpx3(**options)(url)
        texts = " ".join(source.metadata.warnings)
        assert "a.tpx3' ends with 7 bytes that make no word of 8" in texts
        assert "a.tpx3' ends 8 bytes before its last chunk does" in texts
        assert (truth - whole(source)).sum() == 1


@pytest.mark.parametrize("name", ["raw/raw_test_data_00", "raw/raw_test_data_01", "raw/tdc/raw_test_data_tdc_00"])
def test_measured_streams(sample, name):
    """Packets, chips and the table of hits are those that were decoded independently."""
    truth = expected(sample, f"tpx3/{name.rpartition('/')[2]}.tpx3")
    path = sample(f"tpx3/{name}.tpx3")
    hits = decode(np.fromfile(path, "<u8"))
    assert hashlib.sha256(hits.astype("<i8").tobytes()).hexdigest() == truth["sha256_chip_col_row_tot_fine"]
    assert hits[:, 3].sum() == truth["sum_ToT_in_25ns"]
    index, packets = build_index([path]), truth["packets"]
    names = ("header", "pixel", "tdc", "global_time", "control_0x5", "command_0x7", "frame_0xA")
    assert [index.counts[i] for i in (16, 0xB, 6, 4, 5, 7, 0xA)] == [packets[one] for one in names]
    source = Tpx3()(str(path))
    assert source.scan_shape == (1,)
    assert whole(source).sum() == packets["pixel"]
    if truth["tdc"]:
        times = index.edges[:, 2] * 25 / 96
        np.testing.assert_allclose([times[0], times[-1]], [float(truth["tdc"][one][0]) for one in ("first", "last")])


def test_measured_edges(sample):
    """Of the edges that each of four chips reports one remains, a millisecond from the next."""
    index = build_index([sample("tpx3/raw/tdc/raw_test_data_tdc_00.tpx3")])
    edges = of_kind(index.edges, "tdc2_rising")
    assert len(edges.times) == 2001
    assert not len(edges.interpolated)
    np.testing.assert_allclose(np.diff(edges.times) * tpx3.UNIT, 1e-3, atol=1e-8)


@given(
    chip=st.integers(0, 3), column=st.integers(0, 255), row=st.integers(0, 255), tot=st.integers(0, 1023),
    ticks=st.integers(15, 2**34 - 1),
)  # fmt: skip
def test_every_bit_of_a_hit(chip, column, row, tot, ticks):
    """Chip, place, time over threshold and time come back exactly, fine times 0 and 15 included."""
    found = decode(chunk(chip, [hit(column, row, ticks * TICK, tot)]))
    wrapped = ticks if -(-ticks // 16) < 2**30 else ticks - 2**34
    assert found.tolist() == [[chip, column, row, tot, wrapped]]


def test_lines_flyback_and_disorder(tmp_path):
    """Hits come in any order within a chunk; those of the flight back and before the first line belong nowhere."""
    hits = random_hits((3, 4), 60)
    random = np.random.default_rng(3)
    words = [*chunk(0, [hit(1, 1, PERIOD // 2)])]
    for y in range(3):
        begin = (y + 1) * PERIOD
        mine = [hit(c, r, begin + at % 4 * DWELL + late) for at, _, c, r, late in hits if at // 4 == y]
        flight = [hit(7, 7, begin + 4 * DWELL + TICK * 10)]
        packed = [*mine, *flight]
        random.shuffle(packed)
        words += chunk(0, [edge("tdc1_rising", 2 + 2 * y, begin)]) + chunk(0, []) + chunk(0, packed)
    source = Tpx3(**LINE, scan_shape=(3, 4))(str(write(tmp_path / "a.tpx3", words)))
    np.testing.assert_array_equal(whole(source), truth_of((3, 4), hits))
    assert source.metadata.acquisition.dwell_time.value == pytest.approx(15e-6)


@pytest.mark.parametrize("start", [0, 26.8, 107.3, 250.0])
def test_clocks_that_wrap(tmp_path, start):
    """A scan during which the clock of hits or of edges begins anew is read like any other."""
    hits = random_hits((4, 5), 100)
    words = lines((4, 5), hits, dwell=2 * SECOND, period=15 * SECOND, start=round(start * SECOND) // 96 * 96)
    source = Tpx3(scan_shape=(4, 5), trigger="line", edge="tdc1_rising", dwell_time=2)
    np.testing.assert_array_equal(whole(source(str(write(tmp_path / "a.tpx3", words)))), truth_of((4, 5), hits))


def test_a_quiet_stream_is_continued_by_global_times(tmp_path):
    """Hits a minute apart keep their order where global times lie between them."""
    words = []
    for second in range(0, 121, 10):
        words += chunk(0, global_time(second * SECOND))
    words = chunk(0, [hit(0, 0, CLOCK)]) + words + chunk(0, [hit(1, 0, 120 * SECOND // 96 * 96)])
    times = Tpx3()(str(write(tmp_path / "a.tpx3", words))).read_hits(0, 1).time
    np.testing.assert_allclose(np.diff(times), 120, rtol=1e-6)


def test_missing_edges_are_put_in(tmp_path):
    """Where the counter jumps, the edge is put in between its neighbours, reported and listed; also past 4096."""
    hits = random_hits((5, 4), 80)
    words = lines((5, 4), hits, dwell=DWELL, period=PERIOD, first=4092)
    gone = edge("tdc1_rising", 4092 + 4, 2 * PERIOD)
    assert gone in words
    words[words.index(gone)] = 0x71 << 56
    source = Tpx3(**LINE, scan_shape=(5, 4))(str(write(tmp_path / "a.tpx3", words)))
    np.testing.assert_array_equal(whole(source), truth_of((5, 4), hits))
    assert any("1 of 5 edges tdc1_rising are missing" in text for text in source.metadata.warnings)
    assert source.metadata.vendor["interpolated_edges"] == [2]


def test_frames_begin_with_an_edge(tmp_path):
    """One edge per frame: lines follow by their time, the flight back between them is left out."""
    hits = random_hits((2, 3, 4), 100)
    words = []
    for frame in range(2):
        begin = frame * 20 * PERIOD
        mine = [one for one in hits if one[0] // 12 == frame]
        packed = [hit(c, r, begin + at % 12 // 4 * PERIOD + at % 4 * DWELL + late) for at, _, c, r, late in mine]
        words += chunk(0, [edge("tdc1_falling", 3 + 2 * frame, begin), *packed])
    options = {"trigger": "frame", "edge": "tdc1_falling", "dwell_time": 15e-6, "line_time": "100 us"}
    source = Tpx3(**options, scan_shape=(2, 3, 4))(str(write(tmp_path / "a.tpx3", words)))
    np.testing.assert_array_equal(whole(source), truth_of((2, 3, 4), hits))


def test_delay_and_skipped_edges(tmp_path):
    """An edge that announces the line 3 us ahead, and edges before the scan, are told by options."""
    hits, late = random_hits((3, 4), 50), 120 * CLOCK
    shifted = [(*one[:4], one[4] + late) for one in hits]
    words = chunk(0, [edge("tdc1_rising", 0, -PERIOD % (2**35 * 12))])
    words = chunk(0, [edge("tdc1_rising", 2, 0)]) + lines(
        (3, 4), shifted, dwell=DWELL, period=PERIOD, start=PERIOD, first=4
    )
    options = LINE | {"scan_shape": (3, 4), "skip_edges": 1, "delay": "3 us"}
    source = Tpx3(**options)(str(write(tmp_path / "a.tpx3", words)))
    np.testing.assert_array_equal(whole(source), truth_of((3, 4), hits))
    assert source.metadata.vendor["assigned"]["delay_s"] == pytest.approx(3e-6)


def test_a_scan_that_stopped(tmp_path):
    """Lines without an edge are missing, lines that are too many are left out; both are reported."""
    hits = random_hits((3, 4), 50)
    path = str(write(tmp_path / "a.tpx3", lines((3, 4), hits, dwell=DWELL, period=PERIOD)))
    source = Tpx3(**LINE, scan_shape=(4, 4))(path)
    assert source.validity.tolist() == [2] * 12 + [0] * 4
    np.testing.assert_array_equal(whole(source)[:3], truth_of((3, 4), hits))
    source = Tpx3(**LINE, scan_shape=(2, 4))(path)
    np.testing.assert_array_equal(whole(source), truth_of((3, 4), hits)[:2])
    assert any("3 edges tdc1_rising were found for 2 lines" in text for text in source.metadata.warnings)


def test_layout_of_the_chips(tmp_path):
    """Chips lie where the layout says, turned; a chip without a place is left out; no layout is assumed."""
    path = write(tmp_path / "a.tpx3", [word for chip in range(4) for word in chunk(chip, [hit(10, 20, CLOCK)])])
    plain = Tpx3()(str(path))
    assert plain.frame_shape == (1024, 256)
    assert any("4 chips lie one below the other" in text for text in plain.metadata.warnings)
    layout = [(0, 256, 0), (256, 256, 90), (256, 0, 180), None]
    source = Tpx3(layout=layout)(str(path))
    assert source.frame_shape == (512, 512)
    places = np.argwhere(whole(source)[0]).tolist()
    assert sorted(places) == sorted([[20, 256 + 10], [256 + 245, 256 + 20], [256 + 235, 245]])


def test_hits_with_their_times(tmp_path):
    """Hits of a range come by position and pixel, with time and time over threshold in seconds."""
    words = chunk(0, [edge("tdc1_rising", 2, 0), hit(9, 0, 960, tot=40), hit(3, 0, 1920, tot=7)])
    source = Tpx3(**LINE, scan_shape=(1, 4))(str(write(tmp_path / "a.tpx3", words)))
    hits = source.read_hits(0, 4)
    assert hits.pixel.tolist() == [3, 9]
    np.testing.assert_allclose(hits.time, [500e-9, 250e-9])
    np.testing.assert_allclose(hits.time_over_threshold, [175e-9, 1000e-9])


def electrons(scan_shape, count, seed=0):
    """Electrons of up to five pixels, some nanoseconds apart: hits of a stream, and the pixel of each electron."""
    random, hits, truth = np.random.default_rng(seed), [], []
    at = np.sort(random.integers(0, np.prod(scan_shape), count))
    for i, position in enumerate(at.tolist()):
        column, row, late = 20 + 40 * (i % 5), 30 + 7 * (i % 31), 100 * CLOCK * (i % 5) + 50 * TICK  # none touch
        steps = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)][: random.integers(1, 6)]
        hits += [(position, 0, column + c, row + r, late + TICK * int(random.integers(0, 40))) for r, c in steps]
        r, c = np.floor(np.mean(steps, axis=0) + np.array([row + 0.5, column + 0.5])).astype(int)
        truth.append((position, 0, c, r, 0))
    return sorted(hits, key=lambda one: one[0]), truth


def test_hits_joined_to_electrons(tmp_path, monkeypatch):
    """One event per electron, whichever positions are read at once; the hits themselves stay at hand."""
    hits, truth = electrons((6, 5), 400)
    path = str(write(tmp_path / "a.tpx3", lines((6, 5), hits, dwell=DWELL, period=PERIOD)))
    monkeypatch.setattr("stemstore_readers.tpx3_stream.BLOCK_WORDS", 97)
    source = Tpx3(**LINE, scan_shape=(6, 5), cluster=True)(path)
    np.testing.assert_array_equal(whole(source), truth_of((6, 5), truth))
    for start, stop in ((0, 1), (3, 17), (29, 30), (8, 8)):
        np.testing.assert_array_equal(
            np.diff(source.read_events(start, stop).indptr),
            np.bincount([one[0] for one in truth], minlength=30)[start:stop],
        )
    assert len(source.read_hits(0, 30).pixel) == len(hits)
    assert source.metadata.vendor["assigned"]["cluster"] == {"time": 1e-7, "distance": 1}
    apart = Tpx3(**LINE, scan_shape=(6, 5), cluster={"distance": 0, "time": "1 ns"})(path)
    assert whole(apart).sum() == len(hits)
    assert len({one.identity for one in (source, apart, Tpx3(**LINE, scan_shape=(6, 5))(path))}) == 3


def test_an_impossible_fine_time(tmp_path):
    """An edge with fine time 0 counts as one with the first fine step, and is reported."""
    words = chunk(0, [edge("tdc1_rising", 2, 0, fine=0), hit(9, 0, 960)])
    source = Tpx3(**LINE, scan_shape=(1, 4))(str(write(tmp_path / "a.tpx3", words)))
    assert whole(source).sum() == 1
    assert any("1 trigger edges have an impossible fine time" in text for text in source.metadata.warnings)


def test_impossible_lengths(tmp_path):
    """Behind a chunk of impossible length the next header is found; what lies between is counted."""
    good = chunk(0, [hit(1, 2, CLOCK)])
    odd = chunk(0, [hit(3, 4, CLOCK)], size=13)
    long = chunk(0, [hit(5, 6, CLOCK)], size=8000)
    source = Tpx3()(str(write(tmp_path / "a.tpx3", [*good, *odd, *good, *long, *good])))
    assert np.argwhere(whole(source)[0]).tolist() == [[2, 1], [6, 5]]
    assert whole(source)[0, 2, 1] == 3
    assert any("2 words of" in text for text in source.metadata.warnings)


def test_several_files_and_sidecar(tmp_path):
    """A stream in pieces is read in order; the JSON of the acquisition program is kept."""
    hits = random_hits((4, 5), 60)
    words = lines((4, 5), hits, dwell=DWELL, period=PERIOD)
    half = words.index(edge("tdc1_rising", 6, 2 * PERIOD)) - 1
    write(tmp_path / "raw_1.tpx3", words[:half])
    write(tmp_path / "raw_2.tpx3", words[half:])
    (tmp_path / "raw_1.json").write_text(json.dumps({"BiasVoltage": 100}))
    source = Tpx3(**LINE, scan_shape=(4, 5))(str(tmp_path / "raw_*.tpx3"))
    np.testing.assert_array_equal(whole(source), truth_of((4, 5), hits))
    assert source.metadata.vendor["acquisition"] == {"BiasVoltage": 100}


def test_blocks_join(tmp_path, monkeypatch):
    """Pieces of a few words give what the whole stream gives, wherever they cut chunks."""
    hits = random_hits((4, 5), 300, chips=2)
    path = write(tmp_path / "a.tpx3", lines((4, 5), hits, dwell=DWELL, period=PERIOD, chips=2))
    monkeypatch.setattr("stemstore_readers.tpx3_stream.BLOCK_WORDS", 7)
    source = Tpx3(**LINE, scan_shape=(4, 5))(str(path))
    assert len(source.blocks) > 40
    np.testing.assert_array_equal(whole(source), truth_of((4, 5), hits, 2))
    events = source.read_events(7, 9)
    np.testing.assert_array_equal(np.diff(events.indptr), truth_of((4, 5), hits, 2).reshape(20, -1)[7:9].sum(1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scan_shape": (2, 3)}, "needs to know where positions begin"),
        ({"trigger": "line", "edge": "tdc1_rising"}, "needs dwell_time, scan_shape"),
        ({"trigger": "frame", "edge": "tdc1_rising", "scan_shape": (2, 3), "dwell_time": 1}, "needs line_time"),
        ({"trigger": "pixel"}, "needs edge"),
        ({"trigger": "row"}, "trigger='row' is not known"),
        ({"dwell_time": "6 nm"}, "is no time above zero"),
        ({"dwell_time": -1.0}, "is no time above zero"),
        ({"delay": "soon"}, "delay='soon' is no time"),
        ({"skip_edges": -1}, "is not a number of edges"),
        ({"layout": [(0, 0, 45)]}, "degrees a multiple of 90"),
        ({"layout": [None]}, "expected 1 to 16 of which one is not None"),
        (LINE | {"scan_shape": (4,)}, "a scan_shape of rows and columns"),
        ({"cluster": "yes"}, "cluster='yes' is not understood"),
        ({"cluster": {"radius": 1}}, "is not understood"),
        ({"cluster": {"time": "1 ms"}}, "joins too much"),
        ({"cluster": {"distance": 17}}, "joins too much"),
        ({"cluster": {"distance": 1.5}}, "joins too much"),
        ({"cluster": {"time": 0}}, "is no time above zero"),
    ],
)
def test_options_that_do_not_fit(options, match):
    """Options that lack others, or cannot be, are refused when they are given."""
    with pytest.raises(InputError, match=match):
        Tpx3(**options)


def test_streams_that_do_not_fit(tmp_path):
    """A stream without such edges names those that it has; a layout without a chip of the stream is refused."""
    path = str(write(tmp_path / "a.tpx3", chunk(0, [edge("tdc2_rising", 2, 0)]) + chunk(3, [hit(1, 1, 96)])))
    with pytest.raises(InputError, match="has no trigger edges 'tdc1_rising', but tdc2_rising"):
        Tpx3(**LINE, scan_shape=(2, 3))(path)
    with pytest.raises(InputError, match="layout has 1 chips, the stream has 4"):
        Tpx3(layout=[(0, 0, 0)])(path)
    with pytest.raises(InputError, match="skip_edges=5 leaves none of 1 edges"):
        Tpx3(trigger="pixel", edge="tdc2_rising", skip_edges=5)(path)
    with pytest.raises(InputError, match="is a folder"):
        Tpx3()(str(tmp_path))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damaged_streams(tmp_path_factory, data):
    """Whatever the words are, the stream opens and reads, or is refused with one of our errors."""
    path = tmp_path_factory.mktemp("tpx3") / "a.tpx3"
    content = np.array(lines((3, 4), random_hits((3, 4), 12), dwell=DWELL, period=PERIOD), "<u8").tobytes()
    path.write_bytes(data.draw(damaged(content)))
    try:
        source = Tpx3(**LINE, scan_shape=(3, 4), cluster=data.draw(st.booleans()))(str(path))
    except StemStoreError:
        return
    events = source.read_events(0, 12)
    assert len(events.indices) <= len(content) // 8 + 25
    assert (events.indices < np.prod(source.frame_shape)).all()

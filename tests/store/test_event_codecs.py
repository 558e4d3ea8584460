"""What the profiles of counted stores make of an event, and that any Zarr reader understands it."""

import json

import numpy as np
import pytest
import zarr

from stemstore.kernels.events import encode
from stemstore.store.codecs import ChunkCodec, gap_codec

N_FRAMES, SIDE, EVENTS = 300, 576, 1951.0


@pytest.fixture(scope="module")
def gaps():
    """Gaps of frames with 0.6 % of the pixels hit, most of them in the middle of the detector."""
    rng = np.random.default_rng(0)
    radius = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2))
    rate = np.exp(-((radius / 50) ** 2) / 2) + 0.01
    numbers = rng.poisson(EVENTS, N_FRAMES)
    cumulative = np.cumsum(rate.ravel() / rate.sum())
    frames = [np.unique(np.searchsorted(cumulative, rng.random(n))).astype(np.uint32) for n in numbers]
    indptr = np.concatenate([[0], np.cumsum([len(frame) for frame in frames])])
    return encode(indptr, np.concatenate(frames), SIDE * SIDE)[0], int(indptr[-1])


@pytest.mark.parametrize(("profile", "bits"), [("fast", 10.0), ("balanced", 8.5), ("small", 8.3), ("raw", 16.01)])
def test_bits_per_event(gaps, profile, bits):
    """An electron takes no more than it should, and comes back."""
    gap, n_events = gaps
    codec = gap_codec(profile)
    encoded = codec.encode(gap)
    assert 8 * len(encoded) / n_events <= bits
    back = np.empty_like(gap)
    codec.decode(np.frombuffer(encoded, np.uint8), back.view(np.uint8), "here")
    np.testing.assert_array_equal(back, gap)


@pytest.mark.parametrize("profile", ["fast", "balanced", "small", "raw"])
def test_codec_chain_is_plain_zarr(tmp_path, profile):
    """The chain that the metadata state is what zarr itself decodes, and what is read back from them."""
    codec, values = gap_codec(profile), np.arange(5000, dtype=np.uint16) % 77
    zarr.create_array(tmp_path / "a.zarr", shape=values.shape, dtype="u2", chunks=values.shape)
    metadata = tmp_path / "a.zarr" / "zarr.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"codecs": codec.to_zarr()}))
    (tmp_path / "a.zarr" / "c").mkdir()
    (tmp_path / "a.zarr" / "c" / "0").write_bytes(codec.encode(values))
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr")[:], values)
    assert ChunkCodec.from_zarr(codec.to_zarr(), 2, "a") == codec

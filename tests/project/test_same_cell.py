"""One cell of analysis, taken from the notebook on object stores as it stands, gives the same numbers everywhere."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.testing.servers import FileServer

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_object_stores.ipynb"
OPTIONS = {"beam_energy": "300 keV", "scan_step": "0.5 nm", "detector_step": "0.25 mrad"}
SMALL = {"max_memory": "3MiB"}  # makes several shards of few frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a store of frames in several shards, and one of events."""
    path = tmp_path_factory.mktemp("same_cell")
    k = np.arange(128) - 63.5
    pattern = np.where(np.hypot(k[:, None], k) < 20, 0.03, 0.003)
    frames = np.random.default_rng(5).poisson(pattern, (16, 19, 128, 128)).astype(np.uint16)
    frames[..., :50, :] = 0  # a centre of mass off the middle
    frames *= 20
    np.save(path / "frames.npy", frames)
    stemstore.convert(path / "frames.npy", path / "dense.zarr", **SMALL, **OPTIONS)
    limits = {"background_threshold": 10.0, "xray_threshold": 500.0}
    stemstore.convert(path / "frames.npy", path / "counted.zarr", count=True, **limits, **OPTIONS)
    assert len(list((path / "dense.zarr" / "intensity" / "c").rglob("*/0/0"))) > 1
    return path


@pytest.fixture(scope="module")
def look():
    """Run the source of the cell, and give the function that it defines."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if cell["id"] == "the-same-cell"]
    names = {"stemstore": stemstore}
    exec("".join(cell["source"]), names)  # the cell is ours
    return names["look"]


@pytest.fixture(scope="module", params=["dense", "counted"])
def here(request, folder, look):
    """Give a store's name and what the cell finds on its path."""
    name = f"{request.param}.zarr"
    found = look(str(folder / name))
    assert set(found) == {"image", "com", "mean", "pattern"}
    return name, found


@pytest.fixture(scope="module")
def bucket():
    """Run an S3 server of this machine, known to the environment; gives its file system."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs (extras cloud and test)")
    moto = pytest.importorskip("moto.server", reason="needs moto[server] (extra test)")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    known = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in known.items():
            patch.setenv(name, value)
        try:
            fs = s3fs.S3FileSystem(endpoint_url=known["AWS_ENDPOINT_URL"], use_listings_cache=False)
            fs.mkdir("same-cell")
            yield fs
        finally:
            server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Sign a certificate for this machine by itself; gives the contexts of server and client."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography, which moto brings (extra test)")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    alone = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(alone, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    text = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(text) + key.private_bytes(text, *plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


def same(one, other):
    """Compare all results, values and coordinates, to the last bit."""
    return [name for name in one if not one[name].drop_attrs().equals(other[name].drop_attrs())] == []


def test_the_cell_tells_what_the_frames_hold(here, folder):
    """On a path its numbers are those of the frames, by plain sums."""
    name, found = here
    frames = np.load(folder / "frames.npy").astype(np.int64)
    if name == "dense.zarr":
        assert found["pattern"].values.tolist() == frames[12, 17].tolist()
        np.testing.assert_allclose(found["mean"], frames.mean(axis=(0, 1)), rtol=1e-14)
    k = np.arange(128) - 63.5
    r = np.hypot(k[:, None], k)
    counted = stemstore.open(folder / name).intensity.values.astype(np.int64)
    ring = (counted * ((r >= 45) & (r < 62))).sum(axis=(2, 3))
    np.testing.assert_array_equal(found["image"]["dark field"], ring)
    rows = (counted.sum(axis=3) @ k) / counted.sum(axis=(2, 3))
    np.testing.assert_allclose(found["com"].com_y, rows, atol=1e-9)


def test_the_same_cell_on_s3(here, folder, look, bucket):
    """A bucket that the environment leads to, copied to and converted to."""
    name, expected = here
    stemstore.copy_store(folder / name, f"s3://same-cell/{name}")
    assert same(look(f"s3://same-cell/{name}"), expected)
    if name == "dense.zarr":
        stemstore.convert(folder / "frames.npy", "s3://same-cell/converted.zarr", **SMALL, **OPTIONS)
        assert same(look("s3://same-cell/converted.zarr"), expected)


def test_the_same_cell_on_the_web(here, folder, look):
    """A web server with byte ranges."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    name, expected = here
    with FileServer(folder) as server:
        assert same(look(f"{server.url}/{name}"), expected)
        assert any(request.range for request in server.requests)


def test_the_same_cell_behind_a_certificate(here, folder, look, certificate):
    """The same over https, with a certificate that only this client trusts; others are refused."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    name, expected = here
    with FileServer(folder, tls=certificate[0]) as server:
        assert server.url.startswith("https://")
        assert same(look(stemstore.remote(f"{server.url}/{name}", ssl=certificate[1])), expected)
        asked = len(server.requests)
        with pytest.raises(stemstore.errors.StorageError, match="certificates that are trusted"):
            look(f"{server.url}/{name}")
        assert len(server.requests) == asked

"""The public face of the vocabulary."""

import subprocess
import sys

import stemstore_schemas

LOAD_AND_LIST = (
    "import sys, stemstore_schemas; "
    "print(*sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
)
HEAVY = ["stemstore", "stemstore_readers", "xarray", "dask", "zarr", "numba", "h5py", "scipy", "pandas", "matplotlib"]


def test_import_stays_light():
    """The vocabulary needs pydantic and NumPy; it loads neither the house nor any heavy library."""
    command = [sys.executable, "-c", LOAD_AND_LIST, "numpy", "pydantic", *HEAVY]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == ["numpy", "pydantic"]


def test_every_public_name_exists_and_is_documented():
    """The list of public names is true and has no double; classes and functions say what they are."""
    names = stemstore_schemas.__all__
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(stemstore_schemas, name)
        if callable(value) and name not in ("Unit", "ValueSource"):  # aliases of Literal carry no docstring
            assert value.__doc__, name

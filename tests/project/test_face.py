"""The public face: which names there are, what they say about themselves, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stemstore

NAMES = {
    "annulus",
    "bin_detector",
    "bin_scan",
    "bragg_vector_map",
    "bright_field_stack",
    "calibrate",
    "calibrate_disks",
    "center_of_mass",
    "com_colours",
    "compute",
    "convert",
    "convert_on_cluster",
    "convert_partition",
    "convert_series",
    "copy_store",
    "correct",
    "crate",
    "crystallinity",
    "curl",
    "detector_from_lattice",
    "detector_step_from_angle",
    "detector_step_from_rings",
    "disk",
    "disk_image",
    "disk_lists",
    "disk_origin",
    "disk_template",
    "disks_at",
    "divergence",
    "dpc",
    "edit_store",
    "estimate_rotation",
    "event_columns",
    "explain",
    "export",
    "export_disks",
    "finalise_conversion",
    "find_basis",
    "find_beam",
    "find_disks",
    "find_hot_pixels",
    "find_rings",
    "fit_descan",
    "fit_ellipse",
    "fit_lattice",
    "fit_origin",
    "index_disks",
    "index_series",
    "inspect",
    "local_cluster",
    "map_frames",
    "map_scans",
    "max_pattern",
    "mean_pattern",
    "measure_origin",
    "open",
    "open_disks",
    "open_result",
    "open_series",
    "pack_store",
    "plan_conversion",
    "point",
    "polar_profile",
    "power_spectrum",
    "preview_disks",
    "radial_profile",
    "radial_variance",
    "readers",
    "recenter",
    "rechunk_store",
    "rectangle",
    "remote",
    "results",
    "save",
    "save_calibration",
    "scan_step_from_lattice",
    "sector",
    "segments",
    "select_disks",
    "split_halves",
    "strain_map",
    "subtract_descan",
    "thin",
    "to_sparse",
    "transform_com",
    "validate",
    "variance_pattern",
    "verify",
    "virtual_image",
    "worker_environment",
}
HEAVY = {"dask", "distributed", "h5py", "matplotlib", "numba", "numcodecs", "scipy", "sparse", "xarray", "zarr"}
# Milliseconds are a promise for a quiet machine (tens of them); seconds only catch a heavy import that slipped in.
BUDGET = {"stemstore": 1.0, "stemstore_schemas": 3.0}

PROBE = """
import json, sys, time
before = time.perf_counter()
import {package}
seconds = time.perf_counter() - before
print(json.dumps([seconds, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def test_names_are_pinned():
    """The face has exactly these names; adding or removing one is a decision, not an accident."""
    assert set(stemstore.__all__) == NAMES | {"__version__"}
    assert stemstore.__all__ == sorted(stemstore.__all__)


def test_type_checkers_see_the_same_names():
    """What type checkers read under TYPE_CHECKING is what the lazy table loads."""
    tree = ast.parse(Path(stemstore.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}
    assert seen == stemstore._FACE


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_callable_whatever_was_imported_before(name):
    """No module of the package hides a public function of the same name."""
    for module, _ in stemstore._FACE.values():
        importlib.import_module(module)
    assert callable(getattr(stemstore, name))


def test_convert_survives_the_import_of_its_own_module():
    """`stemstore.convert` is the function in a fresh interpreter that imported the conversion first."""
    code = "import stemstore.conversion.run, stemstore; print(callable(stemstore.convert), callable(stemstore.open))"
    assert run(code).split() == ["True", "True"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_function_describes_parameters_and_result(name):
    """The docstring has one summary line, every parameter of the signature, and what comes back."""
    function = getattr(stemstore, name)
    sections = split(inspect.getdoc(function))
    assert re.match(r"^[A-Z].*[.,:)]", sections["Summary"].splitlines()[0])
    assert sections["Returns"].strip()
    parameters = list(inspect.signature(function).parameters.values())
    if parameters:
        described = {
            part.strip().lstrip("*")
            for line in sections["Parameters"].splitlines()
            if line and not line.startswith(" ")
            for part in line.partition(" : ")[0].split(",")
        }
        assert {parameter.name for parameter in parameters} <= described


def test_an_unknown_name_is_refused_with_the_known_ones():
    """A typing mistake shows what there is."""
    with pytest.raises(AttributeError, match=r"no attribute 'virtual_imagee'; the public names are .*virtual_image"):
        stemstore.virtual_imagee  # noqa: B018
    assert dir(stemstore) == sorted(stemstore.__all__)


@pytest.mark.parametrize("package", sorted(BUDGET))
def test_import_is_light(package):
    """Importing the package loads no heavy library and is over in no time."""
    seconds, modules = min(json.loads(run(PROBE.format(package=package))) for _ in range(2))
    assert not HEAVY & set(modules)
    assert seconds < BUDGET[package]


def test_import_of_the_house_does_not_even_need_numpy():
    """`import stemstore` costs what a few files of standard library cost."""
    _, modules = json.loads(run(PROBE.format(package="stemstore")))
    assert not {"numpy", "pydantic", "typer", "rich"} & set(modules)


def test_version_is_that_of_the_distribution():
    """`__version__` and the installed metadata agree."""
    from importlib.metadata import version

    assert stemstore.__version__ == version("stemstore")


def run(code):
    """Run code in a fresh interpreter and give what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def split(docstring):
    """Cut a numpydoc docstring into its sections."""
    pieces = re.split(r"^([A-Z][A-Za-z ]+)\n-+\n", docstring, flags=re.MULTILINE)
    return {"Summary": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}

"""The verb ``disks``."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import parse_size
from stemstore.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = "stemstore disks scan_42.zarr --radius 8 --resume"
DETECTION = "Detection"
BUDGET = "STEMSTORE_MAX_MEMORY"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    *,
    store: Annotated[str, typer.Argument(metavar="STORE", help="A finished store (path or URL).", show_default=False)],
    radius: Annotated[
        float | None, options.setting("--radius", "Radius of the disks in pixels.", DETECTION, "PIXELS")
    ] = None,
    template: Annotated[
        str | None,
        options.setting("--template", "Image of the probe: .npy file, or store of a vacuum scan.", DETECTION, "FILE"),
    ] = None,
    option: Annotated[
        list[str] | None,
        options.setting(
            "--option", "Setting of the detection, such as min_rel=0.02; may be repeated.", DETECTION, "KEY=VALUE"
        ),
    ] = None,
    out: Annotated[str, options.setting("--out", "Name of the result in the store.", options.OUTPUT, "NAME")] = "disks",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run.", rich_help_panel=options.OUTPUT)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a result of this name.", rich_help_panel=options.OUTPUT)
    ] = False,
    workers: options.Workers = None,
    max_memory: options.MaxMemory = None,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Find the Bragg disks of all patterns and keep them in the store.

    Finished pieces are kept from the moment they are there: a run that was stopped goes on with --resume.
    """
    settings = _settings(option or [])
    if max_memory is not None:
        parse_size(max_memory)
    import dask

    from stemstore.ops.disks.find import find_disks
    from stemstore.scan.open import open_scan

    chosen = {} if workers is None else {"num_workers": workers}
    with shown(progress) as display, _budget(max_memory), dask.config.set(chosen), _told():
        disks = find_disks(
            open_scan(store),
            None if template is None else _template(template),
            radius=radius,
            store=store,
            name=out,
            resume=resume,
            overwrite=overwrite,
            progress=display,
            **settings,
        )
    found = {
        "store": store,
        "result": out,
        "patterns": int(disks.processed.sum()),
        "disks": disks.sizes["peak"],
        "patterns_with_disks": int((disks.n_disks > 0).sum()),
        "most_disks": int(disks.n_disks.max()) if disks.n_disks.size else 0,
        "full_lists": disks.attrs["n_full"],
        "radius": disks.attrs["radius"],
    }
    if as_json:
        print_json("disks", found)
    else:
        print_facts([(name.replace("_", " "), str(value)) for name, value in found.items()])


def _settings(texts: list[str]) -> dict[str, Any]:
    """Read settings of the detection; those with an option of their own are none of them."""
    from stemstore.kernels.disks.plan import DiskOptions

    found = options.parse_assignments(texts)
    known = DiskOptions.__optional_keys__
    for name in found:
        if name not in known:
            msg = f"--option {name!r} is no setting of disk detection; known are {', '.join(sorted(known))}"
            raise InputError(msg, key="--option", found=name)
    return found


def _template(path: str) -> Any:
    """Make a template of an image of the probe, or of a scan of vacuum."""
    import numpy as np

    from stemstore.ops.disks.template import disk_template

    if not path.endswith(".npy"):
        from stemstore.scan.open import open_scan

        return disk_template(open_scan(path))
    try:
        image = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        msg = f"the template '{path}' does not exist"
        raise NotFoundError(msg, url=path) from error
    except (ValueError, OSError, EOFError) as error:
        msg = f"the template '{path}' is no array of NumPy ({error}); write it with numpy.save"
        raise InputError(msg, key="--template", found=path) from error
    return disk_template(image)


@contextlib.contextmanager
def _budget(size: str | None) -> Iterator[None]:
    """Set the memory budget of the operations while the block runs."""
    before = os.environ.get(BUDGET)
    if size is not None:
        os.environ[BUDGET] = size
    try:
        yield
    finally:
        if size is not None:
            os.environ.pop(BUDGET)
            os.environ.update({} if before is None else {BUDGET: before})


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell warnings of the detection on stderr, in the tone of errors."""
    from stemstore.ops.disks.verdict import DiskWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiskWarning)
        yield
    for warning in caught:
        notify(f"warning: {warning.message}")

"""JSON Schema documents of everything persisted: ``python -m stemstore_schemas.export FOLDER``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemstore_schemas.document import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of every persisted kind and version, keyed by file name."""
    schemas = {}
    for kind, versions in DOCUMENTS.items():
        for version, model in versions.items():
            name = f"{kind}-v{version}.json"
            schemas[name] = {"$schema": DIALECT, "$id": name, **model.model_json_schema()}
    return schemas


def write_json_schemas(folder: Path) -> list[Path]:
    """Write every JSON Schema into `folder`, which is made where it does not exist, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, schema in json_schemas().items():
        path = folder / name
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents into the folder that is named on the command line and list them."""
    parser = argparse.ArgumentParser(prog="python -m stemstore_schemas.export", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the documents go, usually schemas/json")
    for path in write_json_schemas(parser.parse_args(arguments).folder):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

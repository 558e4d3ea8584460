"""Lineage as RO-Crate metadata: the runs that made a store and its results, by the profile Process Run Crate.

Sources: P. Sefton et al., "RO-Crate Metadata Specification 1.1"; Workflow Run RO-Crate working group, "Process Run
Crate", version 0.5.
"""

from __future__ import annotations

import json
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stemstore.places.address import local_path
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from stemstore.maintenance.lineage import Lineage, Step, Thing

METADATA = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}]
NO_LICENCE = "#no-licence-stated"
NO_SOFTWARE = "#software-not-recorded"
ON_PYPI = ("dask", "numpy", "xarray", "zarr")
"""Packages in histories whose names are known to be those of the Python Package Index."""


def crate_document(lineage: Lineage, folder: Path, licence: str | None = None) -> dict[str, Any]:
    """Write a lineage as the metadata document of an RO-Crate.

    Parameters
    ----------
    lineage
        Of a store.
    folder
        Where the document will lie: what lies below it is named by its relative path, all else by its URI.
    licence
        URI of the licence of the data.

    Returns
    -------
    document
        JSON-LD; the same for the same store, folder and licence.
    """
    entities = _Entities(lineage, folder)
    entities.add_head(licence)
    for thing in lineage.things.values():
        if thing.kind != "state":
            entities.add_thing(thing)
    for step in lineage.steps.values():
        entities.add_step(step)
    graph = [{name: _one(value) for name, value in told.items() if value != []} for told in entities.graph.values()]
    return {"@context": CONTEXT, "@graph": graph}


class _Entities:
    """Entities of a crate by their identifier."""

    def __init__(self, lineage: Lineage, folder: Path) -> None:
        self.lineage, self.folder = lineage, folder
        self.graph: dict[str, dict[str, Any]] = {}
        self.root: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        taken: set[str] = set()  # another content was there before, or is there now
        for thing in lineage.things.values():
            if thing.kind != "state":
                name = self._address(thing)
                self.names[thing.key] = f"{name}#{thing.key.rpartition('#')[2]}" if name in taken else name
                taken.add(name)

    def add(self, identifier: str, kind: str, /, **told: Any) -> dict[str, str]:
        """Add an entity, without what is None, and give the reference to it."""
        known = {name: value for name, value in told.items() if value is not None}
        self.graph.setdefault(identifier, {"@id": identifier, "@type": kind, **known})
        return {"@id": identifier}

    def add_head(self, licence: str | None) -> None:
        """Add the document itself, the crate, the profile and the licence."""
        store = self.lineage.things[self.lineage.store]
        self.add(
            METADATA,
            "CreativeWork",
            conformsTo={"@id": "https://w3id.org/ro/crate/1.1"},
            about={"@id": "./"},
        )
        self.add("./", "Dataset")
        self.root = self.graph["./"]
        self.root |= {
            "name": store.name,
            "description": f"{store.description}, with what it was made from and the results saved in it",
            "datePublished": self.lineage.time,
            "conformsTo": self.add(PROFILE, "CreativeWork", name="Process Run Crate", version="0.5"),
            "license": self._licence(licence),
            "hasPart": [],
            "mentions": [],
        }

    def _licence(self, licence: str | None) -> dict[str, str]:
        if licence is not None:
            return self.add(licence, "CreativeWork", name=licence)
        about = "The store does not tell under which licence its data may be used; ask its owner."
        return self.add(NO_LICENCE, "CreativeWork", name="no licence stated", description=about)

    def reference(self, key: str) -> dict[str, str]:
        """Refer to a thing; to the store where it is a state of it."""
        return {"@id": self.names[self.lineage.named(key).key]}

    def _address(self, thing: Thing) -> str:
        """Name a thing by its path below the crate's folder, else by its URI."""
        slash = "" if thing.kind == "file" or thing.path.endswith(".zip") else "/"
        if not is_local(thing.path):
            return quote(thing.path, safe=":/?#[]@!$&'()*+,;=%") + slash
        path = Path(os.path.abspath(local_path(thing.path)))  # noqa: PTH100  # links stay as they were given
        try:
            return quote(path.relative_to(self.folder).as_posix()) + slash
        except ValueError:
            return path.as_uri() + slash

    def add_thing(self, thing: Thing) -> None:
        """Add a file, a store or a result."""
        algorithm, _, digits = (thing.digest or "").partition(":")
        names = [thing.key.replace("uuid:", "urn:uuid:")] if thing.key.startswith("uuid:") else []
        if thing.digest and (algorithm != "sha256" or thing.kind != "file"):
            names.append(thing.digest)
        kind = "File" if thing.kind == "file" else "Dataset"
        part = self.add(
            self.names[thing.key],
            kind,
            name=thing.name,
            description=thing.description or None,
            identifier=names,
            encodingFormat=_media_type(thing.path) if kind == "File" else None,
            contentSize=None if thing.size is None or kind == "Dataset" else str(thing.size),
            dateModified=thing.time,
            sha256=digits if algorithm == "sha256" and kind == "File" else None,
        )
        whole = self.graph[self.names[self.lineage.store]] if thing.kind == "result" else self.root
        whole.setdefault("hasPart", []).append(part)

    def add_step(self, step: Step) -> None:
        """Add the run of an operation, its software and its parameters."""
        entry, identifier = step.entry, f"#{step.key}"
        used = [self.reference(key) for key in step.used]
        changes = any(self.lineage.things[key].kind == "state" for key in step.used)
        told = [
            self.add(f"{identifier}/{place}/{quote(name, safe='')}", "PropertyValue", name=name, value=_plain(value))
            for place, values in (("parameter", entry.parameters), ("environment", entry.environment))
            for name, value in values.items()
        ]
        made = [self.reference(key) for key in step.made]
        sources = ", ".join(self.lineage.named(key).name for key in step.used)
        lines = [f"{entry.operation} of {sources or 'data in memory'}", *entry.warnings]
        lines += [] if entry.host is None else [f"on a machine of type {entry.host}"]
        run = self.add(
            identifier,
            "UpdateAction" if changes else "CreateAction",
            name=entry.operation,
            description="; ".join(lines),
            instrument=[self._software(*one) for one in entry.software.items()] or self._unknown(),
            object=used + told,
            result=made or self._gave(step),
            startTime=entry.time,
            endTime=step.ended,
            agent=None if entry.agent is None else self._agent(entry.agent),
            actionStatus="http://schema.org/CompletedActionStatus",
        )
        self.root["mentions"].append(run)

    def _gave(self, step: Step) -> list[dict[str, str]]:
        """Name what an operation led to whose own result was not kept: what the next step made of it."""
        next_ones = [one for one in self.lineage.steps.values() if step.key in one.after]
        return [self.reference(key) for one in next_ones for key in one.made]

    def _software(self, package: str, version: str) -> dict[str, str]:
        kind = "pypi" if package in ON_PYPI else "generic"
        page = f"https://pypi.org/project/{package}/{version}/" if kind == "pypi" else None
        identifier = f"pkg:{kind}/{quote(package, safe='')}@{quote(version, safe='')}"  # a package URL, as of purl-spec
        return self.add(identifier, "SoftwareApplication", name=package, version=version, url=page)

    def _unknown(self) -> dict[str, str]:
        return self.add(NO_SOFTWARE, "SoftwareApplication", name="not recorded")

    def _agent(self, agent: str) -> dict[str, str]:
        known = agent.startswith(("https://orcid.org/", "http://orcid.org/"))
        return self.add(agent if known else f"#agent/{quote(agent, safe='')}", "Person", name=agent)


def _one(value: Any) -> Any:
    """Give a single value as itself, as the specification asks."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _media_type(path: str) -> str:
    """Media type of a file by its name; that of plain bytes where the name says nothing."""
    return mimetypes.guess_type(path, strict=True)[0] or "application/octet-stream"


def _plain(value: Any) -> Any:
    """Give a parameter as JSON-LD knows values; anything else as JSON text."""
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value, ensure_ascii=False)

"""Lineage as PROV-JSON: entities, activities and agents, and who used, made and ran what.

Source: T. D. Huynh et al., "The PROV-JSON Serialization", W3C member submission, 24 April 2013; terms of PROV-DM,
W3C recommendation, 30 April 2013.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore.maintenance.lineage import Lineage, Step, Thing

PREFIXES = {
    "uuid": "urn:uuid:",
    "file": "urn:stemstore:file:",
    "software": "urn:stemstore:software:",
    "agent": "urn:stemstore:agent:",
    "stemstore": "urn:stemstore:term:",
    "parameter": "urn:stemstore:parameter:",
    "environment": "urn:stemstore:environment:",
}
"""Names are URNs: they need no server, and mean the same wherever the document goes."""

TYPES = {"file": "stemstore:SourceFile", "store": "stemstore:Store", "result": "stemstore:Result"}


def prov_document(lineage: Lineage) -> dict[str, Any]:
    """Write a lineage as a PROV-JSON document.

    Parameters
    ----------
    lineage
        Of a store.

    Returns
    -------
    document
        JSON values.
    """
    document: dict[str, Any] = {"prefix": dict(PREFIXES)}
    numbers = itertools.count(1)

    def relate(relation: str, **ends: str) -> None:
        told = {f"prov:{name}": value for name, value in ends.items()}
        document.setdefault(relation, {})[f"_:r{next(numbers)}"] = told

    document["entity"] = {_name(thing.key): _entity(lineage, thing) for thing in lineage.things.values()}
    document["activity"] = {_name(step.key): _activity(step) for step in lineage.steps.values()}
    for thing in lineage.things.values():
        if thing.kind == "state":
            relate(
                "specializationOf", specificEntity=_name(thing.key), generalEntity=_name(lineage.named(thing.key).key)
            )
    for step in lineage.steps.values():
        activity = _name(step.key)
        for name, agent in _agents(step):
            document.setdefault("agent", {})[name] = agent
            relate("wasAssociatedWith", activity=activity, agent=name)
        for used in step.used:
            relate("used", activity=activity, entity=_name(used))
        for made in step.made:
            relate("wasGeneratedBy", entity=_name(made), activity=activity)
            for used in step.used:
                relate("wasDerivedFrom", generatedEntity=_name(made), usedEntity=_name(used), activity=activity)
        for before in step.after:
            relate("wasInformedBy", informed=activity, informant=_name(before))
    return document


def _name(key: str) -> str:
    """Give a key as a qualified name; the parts of paths that have a meaning in URNs are escaped."""
    prefix, _, local = key.partition(":")
    return f"{prefix}:{quote(local, safe='/:')}"


def _entity(lineage: Lineage, thing: Thing) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prov:type": {"$": TYPES.get(thing.kind, "stemstore:State"), "type": "prov:QUALIFIED_NAME"},
        "prov:label": thing.name,
        "prov:location": thing.path,
    }
    facts = {"description": thing.description, "digest": thing.digest, "bytes": thing.size}
    told |= {f"stemstore:{name}": value for name, value in facts.items() if value not in (None, "")}
    if thing.time is not None:
        told["stemstore:modified"] = {"$": thing.time, "type": "xsd:dateTime"}
    if thing.key == lineage.store:
        told["stemstore:shape"] = json.dumps(list(lineage.document.shape))
    return told


def _activity(step: Step) -> dict[str, Any]:
    entry = step.entry
    told: dict[str, Any] = {"prov:label": entry.operation, "prov:startTime": entry.time}
    if step.ended is not None:
        told["prov:endTime"] = step.ended
    told["stemstore:operation_version"] = entry.operation_version
    told |= {f"parameter:{quote(name, safe='')}": _plain(value) for name, value in entry.parameters.items()}
    told |= {f"environment:{quote(name, safe='')}": _plain(value) for name, value in entry.environment.items()}
    facts = {"host": entry.host, "seed": entry.seed}
    told |= {f"stemstore:{name}": value for name, value in facts.items() if value is not None}
    if entry.warnings:
        told["stemstore:warning"] = entry.warnings[0] if len(entry.warnings) == 1 else entry.warnings
    return told


def _agents(step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
    """Programs and people that took part in an operation."""
    for package, version in step.entry.software.items():
        told = {
            "prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"},
            "prov:label": f"{package} {version}",
            "stemstore:version": version,
        }
        yield f"software:{quote(f'{package}/{version}', safe='/')}", told
    if step.entry.agent:
        person = {"prov:type": {"$": "prov:Person", "type": "prov:QUALIFIED_NAME"}, "prov:label": step.entry.agent}
        yield f"agent:{quote(step.entry.agent, safe='')}", person


def _plain(value: Any) -> Any:
    """Give a parameter as PROV-JSON knows values: texts, numbers and truth; anything else as JSON text."""
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value, ensure_ascii=False)

"""Where and how an index is deployed, as both API shapes say it.

All of it is kept and shown, and decides nothing here: an index that asks for pods, for another
cloud or for dedicated read nodes is served like any other. So unknown clouds, regions and
environments are fine; but they are texts of a bounded length, and numbers have bounds.
"""

import re
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from api.errors import Unprocessable
from core.errors import InvalidRequest
from infra.catalog.model import Spec

TEXT_CHARS_MAX = 128
COPIES_MAX = 1000
FIELDS_MAX = 1000
FIELD_CHARS_MAX = 512

_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")
_POD_TYPE = re.compile(r"(s1|p1|p2)(\.x[1248])?")
READY = {"state": "Ready"}
ON_DEMAND = {"mode": "OnDemand"}


class ManualScaling(Struct):
    shards: int | UnsetType = UNSET
    replicas: int | UnsetType = UNSET


class DedicatedNodes(Struct):
    """A new index needs `node_type` and `scaling`; a change may leave out what stays."""

    node_type: str | UnsetType = UNSET
    scaling: str | UnsetType = UNSET
    manual: ManualScaling | UnsetType = UNSET


class ReadCapacity(Struct):
    """`mode`: OnDemand, or Dedicated with `dedicated`."""

    mode: str
    dedicated: DedicatedNodes | None = None


class PodChange(Struct):
    """Of a pod deployment."""

    replicas: int | UnsetType = UNSET
    pod_type: str | UnsetType = UNSET


class MetadataConfig(Struct):
    """Accepted and kept: every metadata field can be filtered by."""

    indexed: list[str] | None = None


def managed(cloud: str, region: str, environment: str | None = None) -> Spec:
    """The deployment of a serverless index. `InvalidRequest`, as all of these."""
    kept = {
        "deployment_type": "managed",
        "cloud": _text(cloud, "cloud"),
        "region": _text(region, "region"),
    }
    if environment is not None:
        kept["environment"] = _text(environment, "environment")
    return kept


def byoc(environment: str) -> Spec:
    return {"deployment_type": "byoc", "environment": _text(environment, "environment")}


def pod(environment: str, pod_type: str, replicas: int, shards: int) -> Spec:
    return {
        "deployment_type": "pod",
        "environment": _text(environment, "environment"),
        "pod_type": _pod_type(pod_type),
        "replicas": _copies(replicas, "replicas"),
        "shards": _copies(shards, "shards"),
    }


def scaling(change: PodChange | None) -> dict[str, Any] | None:
    """What a change sets of a pod deployment; None for nothing."""
    if change is None:
        return None
    kept: dict[str, Any] = {}
    if change.replicas is not UNSET:
        kept["replicas"] = _copies(change.replicas, "replicas")
    if change.pod_type is not UNSET:
        kept["pod_type"] = _pod_type(change.pod_type)
    return kept or None


def metadata_config(given: MetadataConfig) -> dict[str, list[str]]:
    fields = given.indexed or []
    check_fields(fields)
    return {"indexed": fields}


def check_fields(names: list[str]) -> None:
    """Names of metadata fields that are declared."""
    if len(names) > FIELDS_MAX:
        raise InvalidRequest(f"At most {FIELDS_MAX} fields can be declared, not {len(names)}")
    for name in names:
        if not 1 <= len(name) <= FIELD_CHARS_MAX or "\0" in name:
            raise InvalidRequest(f"The name of a field has 1 to {FIELD_CHARS_MAX} characters")


def new_capacity(given: ReadCapacity | None) -> Spec:
    """What the spec of a new index gets: `read_capacity`, or nothing."""
    wanted = capacity(given)
    return {} if wanted is None else {"read_capacity": merged_capacity(None, wanted)}


def capacity(given: ReadCapacity | None) -> Spec | None:
    """What a body says of read capacity: a part of it, see `merged_capacity`."""
    if given is None:
        return None
    if given.mode == "OnDemand":
        return ON_DEMAND
    if given.mode != "Dedicated" or given.dedicated is None:
        raise Unprocessable("read_capacity must have the mode OnDemand, or Dedicated and dedicated")
    nodes = given.dedicated
    kept: Spec = {}
    if nodes.node_type is not UNSET:
        kept["node_type"] = _text(nodes.node_type, "node_type")
    if nodes.scaling is not UNSET:
        if nodes.scaling != "Manual":
            raise Unprocessable("read_capacity.dedicated.scaling must be Manual")
        kept["scaling"] = nodes.scaling
    if nodes.manual is not UNSET:
        manual = {"shards": nodes.manual.shards, "replicas": nodes.manual.replicas}
        kept["manual"] = {
            name: _copies(number, name, least=0 if name == "replicas" else 1)
            for name, number in manual.items()
            if number is not UNSET
        }
    return {"mode": "Dedicated", "dedicated": kept}


def merged_capacity(before: Spec | None, change: Spec) -> Spec:
    """A change of dedicated nodes leaves what it does not name. `Unprocessable`: not complete."""
    if change["mode"] == "OnDemand":
        return change
    known = before["dedicated"] if before is not None and before["mode"] == "Dedicated" else {}
    nodes = {**known, **change["dedicated"]}
    if "node_type" not in nodes or "scaling" not in nodes:
        raise Unprocessable("read_capacity.dedicated must have node_type and scaling")
    one = {"shards": 1, "replicas": 1}
    nodes["manual"] = {**one, **known.get("manual", {}), **change["dedicated"].get("manual", {})}
    return {"mode": "Dedicated", "dedicated": nodes}


def shown_capacity(kept: Spec) -> dict[str, Any]:
    """With its status. Nothing has to be scaled first, so what was asked for is what there is."""
    if kept["mode"] == "OnDemand":
        return {**kept, "status": READY}
    manual = kept["dedicated"].get("manual", {})
    current = {f"current_{name}": manual[name] for name in ("shards", "replicas") if name in manual}
    return {**kept, "status": {**READY, **current}}


def _text(value: str, name: str) -> str:
    if not 1 <= len(value) <= TEXT_CHARS_MAX or _TEXT.fullmatch(value) is None:
        raise InvalidRequest(f"{name} must have 1 to {TEXT_CHARS_MAX} printable ASCII characters")
    return value


def _pod_type(value: str) -> str:
    if _POD_TYPE.fullmatch(value) is None:
        raise InvalidRequest(
            f"pod_type must be s1, p1 or p2, with .x1, .x2, .x4 or .x8, not {value[:40]!r}"
        )
    return value


def _copies(value: int, name: str, least: int = 1) -> int:
    if not least <= value <= COPIES_MAX:
        raise InvalidRequest(f"{name} must be between {least} and {COPIES_MAX}, not {value}")
    return value

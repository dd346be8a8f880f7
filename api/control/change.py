"""A change of an index's configuration, whatever shape it came in."""

from dataclasses import dataclass, replace
from typing import Any

from api.control.deployment import merged_capacity
from api.control.embed import SPEC_KEY, EmbedChange, changed_embed
from api.control.rules import merge_tags
from core.errors import InvalidRequest
from infra.catalog.model import CatalogIndex
from infra.embedding.embedders import Embedders


@dataclass(frozen=True, slots=True)
class IndexChange:
    """None: leave it as it is. `scaling`: replicas and pod_type of a pod deployment."""

    deletion_protection: bool | None = None
    tags: dict[str, str] | None = None
    scaling: dict[str, Any] | None = None
    read_capacity: dict[str, Any] | None = None
    embed: EmbedChange | None = None

    def apply(self, index: CatalogIndex, embedders: Embedders) -> CatalogIndex:
        """`InvalidRequest` if the index cannot be changed so."""
        spec = dict(index.spec)
        if self.scaling:
            if spec["deployment"]["deployment_type"] != "pod":
                raise InvalidRequest("Only an index on pods has replicas and a pod_type to change")
            spec["deployment"] = {**spec["deployment"], **self.scaling}
        if self.read_capacity is not None:
            if spec["deployment"]["deployment_type"] == "pod":
                raise InvalidRequest("An index on pods has no read_capacity")
            known = spec.get("read_capacity")
            spec["read_capacity"] = merged_capacity(known, self.read_capacity)
        if self.embed is not None:
            spec[SPEC_KEY] = changed_embed(index, self.embed, embedders).kept()
        protected = self.deletion_protection
        return replace(
            index,
            spec=spec,
            tags=index.tags if self.tags is None else merge_tags(index.tags, self.tags),
            deletion_protection=index.deletion_protection if protected is None else protected,
        )

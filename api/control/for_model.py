"""The body of `POST /indexes/create-for-model`, the same in every API version."""

from msgspec import Struct

from api.control import deployment, rules
from api.control.body import decode
from api.control.classic import MetadataSchema
from api.control.embed import SPEC_KEY, Embed, new_embed
from core.indexes import VectorType
from infra.catalog.model import NewIndex, Spec
from infra.embedding.embedders import Embedders


class CreateForModel(Struct):
    """An index whose records are texts: the model embeds the field that `field_map` names."""

    name: str
    cloud: str
    region: str
    embed: Embed
    deletion_protection: str | None = None
    tags: dict[str, str] | None = None
    schema: MetadataSchema | None = None
    read_capacity: deployment.ReadCapacity | None = None


def parse_create(body: bytes, embedders: Embedders) -> NewIndex:
    """Errors as in `classic`; `NotFound` for a model that is not configured."""
    wanted = decode(body, CreateForModel)
    name = rules.check_name(wanted.name)
    model = embedders.named(wanted.embed.model).model
    embed, metric = new_embed(wanted.embed, model)
    where = deployment.managed(wanted.cloud, wanted.region)
    spec: Spec = {"deployment": where, SPEC_KEY: embed.kept()}
    spec |= deployment.new_capacity(wanted.read_capacity)
    if wanted.schema is not None:
        fields = wanted.schema.fields
        deployment.check_fields(list(fields))
        spec["fields"] = {key: {"filterable": value.filterable} for key, value in fields.items()}
    return NewIndex(
        name=name,
        dimension=model.dimension,
        metric=metric,
        vector_type=VectorType.DENSE,
        spec=spec,
        deletion_protection=rules.parse_protection(wanted.deletion_protection or "disabled"),
        tags=rules.check_tags(wanted.tags or {}),
    )

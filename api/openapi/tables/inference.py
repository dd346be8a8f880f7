"""Operations of the control plane on the configured models."""

from api.openapi.answers.records import EmbedAnswer, ModelList, ModelShown
from api.openapi.operation import Access, Answer, Operation, Parameter
from api.records.inference import EmbedBody

TAG = "Models"

OPERATIONS = (
    Operation(
        "POST",
        "/embed",
        "embed",
        "Embed texts",
        TAG,
        Access.READ,
        {200: Answer("One vector for each", EmbedAnswer)},
        request=EmbedBody,
        errors=(404, 412),
    ),
    Operation(
        "POST",
        "/rerank",
        "rerank",
        "Not there: this server has no such models",
        TAG,
        Access.READ,
        {},
        errors=(501,),
    ),
    Operation(
        "GET",
        "/models",
        "listModels",
        "List the models that this server has",
        TAG,
        Access.READ,
        {200: Answer("All that fit", ModelList)},
        parameters=(
            Parameter("type", "embed: all of them; rerank: none."),
            Parameter("vector_type", "dense: all of them; sparse: none."),
        ),
    ),
    Operation(
        "GET",
        "/models/{name}",
        "describeModel",
        "Describe a model",
        TAG,
        Access.READ,
        {200: Answer("The model", ModelShown)},
    ),
)

"""Operations of the control plane on indexes."""

from api.control import classic, typed
from api.control.for_model import CreateForModel
from api.openapi.answers.indexes import INDEX, IndexList
from api.openapi.operation import Access, Answer, Operation, Versions

TAG = "Indexes"

CREATE = Versions(
    "CreateIndex",
    (classic.ClassicCreate, typed.TypedCreate),
    "An index to create, in the shape of the client's API version.",
    alike=True,
)
CONFIGURE = Versions(
    "ConfigureIndex",
    (classic.ClassicConfigure, typed.TypedConfigure),
    "What to change of an index; what is left out stays as it is. Tags are merged, and one with an "
    "empty value is removed.",
    alike=True,
)

OPERATIONS = (
    Operation(
        "GET",
        "/indexes",
        "listIndexes",
        "List the project's indexes",
        TAG,
        Access.READ,
        {200: Answer("All of them", IndexList)},
    ),
    Operation(
        "POST",
        "/indexes",
        "createIndex",
        "Create an index",
        TAG,
        Access.ADMIN,
        {201: Answer("It is ready for records", INDEX)},
        request=CREATE,
        errors=(404, 409, 412, 501),
    ),
    Operation(
        "POST",
        "/indexes/create-for-model",
        "createIndexForModel",
        "Create an index that embeds texts itself",
        TAG,
        Access.ADMIN,
        {201: Answer("It is ready for records", INDEX)},
        request=CreateForModel,
        errors=(404, 409, 412),
        description="With one of the models of GET /models; dimension and metric are the model's.",
    ),
    Operation(
        "GET",
        "/indexes/{name}",
        "describeIndex",
        "Describe an index",
        TAG,
        Access.READ,
        {200: Answer("The index", INDEX)},
        description="`host` is where its data plane is.",
    ),
    Operation(
        "PATCH",
        "/indexes/{name}",
        "configureIndex",
        "Change an index's configuration",
        TAG,
        Access.ADMIN,
        {202: Answer("The index as it is now", INDEX)},
        request=CONFIGURE,
        errors=(501,),
    ),
    Operation(
        "DELETE",
        "/indexes/{name}",
        "deleteIndex",
        "Delete an index and all of its records",
        TAG,
        Access.ADMIN,
        {202: Answer("It is gone")},
        errors=(412,),
    ),
)

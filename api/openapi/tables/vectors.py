"""Operations of the data plane on records."""

from api.openapi import bounds
from api.openapi import parameters as p
from api.openapi.answers.shape import Empty
from api.openapi.answers.vectors import (
    FetchAnswer,
    FetchPageAnswer,
    ListAnswer,
    QueryAnswer,
    StatsAnswer,
    UpdateAnswer,
    UpsertAnswer,
)
from api.openapi.operation import Access, Answer, Operation, Parameter
from core.limits import FETCH_IDS_MAX
from ingest.bodies import (
    DeleteBody,
    FetchByMetadataBody,
    QueryBody,
    StatsBody,
    UpdateBody,
    UpsertBody,
)

TAG = "Records"

STATS = {200: Answer("Counts by namespace", StatsAnswer, p.SEEN)}

OPERATIONS = (
    Operation(
        "POST",
        "/vectors/upsert",
        "upsertVectors",
        "Write whole records",
        TAG,
        Access.WRITE,
        {200: Answer("All of them are written", UpsertAnswer, p.WRITTEN)},
        request=UpsertBody,
    ),
    Operation(
        "POST",
        "/query",
        "queryVectors",
        "Find the nearest records",
        TAG,
        Access.READ,
        {200: Answer("Matches, best first", QueryAnswer, p.SEEN)},
        request=QueryBody,
        parameters=(*p.READ, p.EXHAUSTIVE, p.EXPLAIN),
    ),
    Operation(
        "GET",
        "/vectors/fetch",
        "fetchVectors",
        "Get records by their ids",
        TAG,
        Access.READ,
        {200: Answer("Those that exist", FetchAnswer, p.SEEN)},
        parameters=(
            Parameter(
                "ids",
                "Once for each id.",
                {
                    "type": "array",
                    "items": {"type": "string", **bounds.ID},
                    "minItems": 1,
                    "maxItems": FETCH_IDS_MAX,
                },
                required=True,
            ),
            p.NAMESPACE,
            *p.READ,
        ),
    ),
    Operation(
        "POST",
        "/vectors/fetch_by_metadata",
        "fetchVectorsByMetadata",
        "Get the records that match a filter, a page at a time",
        TAG,
        Access.READ,
        {200: Answer("A page, in the order of ids", FetchPageAnswer, p.SEEN)},
        request=FetchByMetadataBody,
        parameters=p.READ,
    ),
    Operation(
        "POST",
        "/vectors/update",
        "updateVectors",
        "Change one record by its id, or the metadata of all that match a filter",
        TAG,
        Access.WRITE,
        {200: Answer("It is written; a dry run is counted", UpdateAnswer, p.DECIDED)},
        request=UpdateBody,
    ),
    Operation(
        "POST",
        "/vectors/delete",
        "deleteVectors",
        "Delete records by their ids, by a filter, or all of a namespace",
        TAG,
        Access.WRITE,
        {200: Answer("They are gone", Empty, p.DECIDED)},
        request=DeleteBody,
        errors=(404,),
    ),
    Operation(
        "GET",
        "/vectors/list",
        "listVectors",
        "List ids, a page at a time",
        TAG,
        Access.READ,
        {200: Answer("A page", ListAnswer, p.SEEN)},
        parameters=(p.NAMESPACE, p.PREFIX, p.LIMIT, p.PAGE_TOKEN, *p.READ),
    ),
    Operation(
        "POST",
        "/describe_index_stats",
        "describeIndexStats",
        "Count the records of every namespace",
        TAG,
        Access.READ,
        STATS,
        request=StatsBody,
        request_required=False,
        parameters=p.READ,
    ),
    Operation(
        "GET",
        "/describe_index_stats",
        "getIndexStats",
        "Count the records of every namespace",
        TAG,
        Access.READ,
        STATS,
        parameters=p.READ,
    ),
)

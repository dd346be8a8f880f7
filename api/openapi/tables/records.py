"""Operations of the data plane on records as texts, and the documents API that is not there."""

from api.openapi import parameters as p
from api.openapi.answers.records import SearchRecordsAnswer
from api.openapi.operation import JSON, NDJSON, Access, Answer, Operation
from api.records.bodies import SearchRecordsBody, UpsertRecord
from api.vectors.documents import METHODS

TAG = "Texts"

OPERATIONS = (
    Operation(
        "POST",
        "/records/namespaces/{name}/upsert",
        "upsertRecords",
        "Write records whose text is embedded here",
        TAG,
        Access.WRITE,
        {201: Answer("All of them are written", headers=p.WRITTEN)},
        request=UpsertRecord,
        request_media=(NDJSON, JSON),
        errors=(412, 413),
        description="One JSON object a line. Needs an index with integrated embedding.",
    ),
    Operation(
        "POST",
        "/records/namespaces/{name}/search",
        "searchRecords",
        "Find the nearest records to a text, a vector or a record",
        TAG,
        Access.READ,
        {200: Answer("Hits, best first", SearchRecordsAnswer, p.SEEN)},
        request=SearchRecordsBody,
        parameters=(*p.READ, p.EXHAUSTIVE),
        errors=(412, 501),
        description="By text in an index with integrated embedding, by vector or id in every one.",
    ),
    *(
        Operation(
            method,
            "/namespaces/{name}/documents/{operation}",
            f"{method.lower()}Documents",
            "Not there: use the vectors or the records API",
            TAG,
            Access.READ,
            {},
            errors=(501,),
        )
        for method in METHODS
    ),
)

"""Operations on bulk imports and exports."""

from api.openapi import parameters as p
from api.openapi.answers.imports import ImportModel, ImportPage, ImportStarted
from api.openapi.answers.shape import Empty
from api.openapi.operation import Access, Answer, Operation
from api.vectors.export import LSN, PARQUET, RECORDS
from api.vectors.imports import ImportBody

TAG = "Imports and exports"

OPERATIONS = (
    Operation(
        "POST",
        "/bulk/imports",
        "startImport",
        "Begin an import of Parquet files from a configured location",
        TAG,
        Access.WRITE,
        {200: Answer("It will run", ImportStarted)},
        request=ImportBody,
        errors=(412,),
    ),
    Operation(
        "GET",
        "/bulk/imports",
        "listImports",
        "The index's imports, newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", ImportPage)},
        parameters=(p.LIMIT, p.PAGE_TOKEN),
    ),
    Operation(
        "GET",
        "/bulk/imports/{import_id}",
        "describeImport",
        "How far an import is, or how it ended",
        TAG,
        Access.READ,
        {200: Answer("The import", ImportModel)},
    ),
    Operation(
        "DELETE",
        "/bulk/imports/{import_id}",
        "cancelImport",
        "Cancel an import; one that has ended stays as it is",
        TAG,
        Access.WRITE,
        {200: Answer("It has ended", Empty)},
    ),
    Operation(
        "GET",
        "/firndb/export",
        "exportNamespace",
        "A namespace as a Parquet file that an import takes, exact as of one LSN",
        TAG,
        Access.READ,
        {200: Answer("The file, as it is made", headers=(LSN, RECORDS), media=PARQUET)},
        parameters=(p.NAMESPACE,),
    ),
)

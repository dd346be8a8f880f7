"""Operations on backups, restore jobs and collections."""

from api.control.backups import ERROR_HEADER, CreateBackup, CreateIndexFromBackup
from api.control.collections import CreateCollection
from api.control.pages import PAGE_MAX
from api.openapi import parameters as p
from api.openapi.answers.backups import (
    BACKUP,
    BackupPage,
    CollectionList,
    CollectionShown,
    IndexFromBackup,
    RestoreJobPage,
    RestoreJobShown,
)
from api.openapi.operation import Access, Answer, Operation, Parameter

TAG = "Backups and collections"

LIMIT = Parameter(
    "limit",
    f"Entries of a page; more than {PAGE_MAX} count as {PAGE_MAX}.",
    {"type": "integer", "minimum": 1, "default": PAGE_MAX},
)
PAGE = (LIMIT, p.PAGE_TOKEN)

OPERATIONS = (
    Operation(
        "POST",
        "/indexes/{name}/backups",
        "createBackup",
        "Back up an index",
        TAG,
        Access.ADMIN,
        {201: Answer("It is being taken", BACKUP)},
        request=CreateBackup,
        request_required=False,
        errors=(412,),
        description="It holds every write that was acknowledged before. Not for indexes on pods.",
    ),
    Operation(
        "GET",
        "/indexes/{name}/backups",
        "listIndexBackups",
        "List an index's backups, the newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", BackupPage)},
        parameters=(
            *PAGE,
            Parameter(
                "include_deleted",
                "Those of deleted indexes that had the name as well.",
                {"type": "boolean", "default": False},
            ),
        ),
    ),
    Operation(
        "GET",
        "/backups",
        "listBackups",
        "List the project's backups, the newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", BackupPage)},
        parameters=PAGE,
    ),
    Operation(
        "GET",
        "/backups/{backup_id}",
        "describeBackup",
        "Describe a backup",
        TAG,
        Access.READ,
        {200: Answer("The backup", BACKUP, (ERROR_HEADER,))},
    ),
    Operation(
        "DELETE",
        "/backups/{backup_id}",
        "deleteBackup",
        "Delete a backup",
        TAG,
        Access.ADMIN,
        {202: Answer("It is being deleted")},
        errors=(412,),
        description="Indexes that were made of it stay as they are.",
    ),
    Operation(
        "POST",
        "/backups/{backup_id}/create-index",
        "createIndexFromBackup",
        "Create an index from a backup",
        TAG,
        Access.ADMIN,
        {202: Answer("The index is there, a job fills it", IndexFromBackup)},
        request=CreateIndexFromBackup,
        errors=(409, 412),
    ),
    Operation(
        "GET",
        "/restore-jobs",
        "listRestoreJobs",
        "List the jobs that create indexes from backups, the newest first",
        TAG,
        Access.READ,
        {200: Answer("A page", RestoreJobPage)},
        parameters=PAGE,
    ),
    Operation(
        "GET",
        "/restore-jobs/{job_id}",
        "describeRestoreJob",
        "Describe a restore job",
        TAG,
        Access.READ,
        {200: Answer("The job", RestoreJobShown, (ERROR_HEADER,))},
    ),
    Operation(
        "POST",
        "/collections",
        "createCollection",
        "Create a collection from an index on pods",
        TAG,
        Access.ADMIN,
        {201: Answer("It is being taken", CollectionShown)},
        request=CreateCollection,
        errors=(404, 409, 412),
    ),
    Operation(
        "GET",
        "/collections",
        "listCollections",
        "List the project's collections",
        TAG,
        Access.READ,
        {200: Answer("All of them", CollectionList)},
    ),
    Operation(
        "GET",
        "/collections/{name}",
        "describeCollection",
        "Describe a collection",
        TAG,
        Access.READ,
        {200: Answer("The collection", CollectionShown, (ERROR_HEADER,))},
    ),
    Operation(
        "DELETE",
        "/collections/{name}",
        "deleteCollection",
        "Delete a collection",
        TAG,
        Access.ADMIN,
        {202: Answer("It is being deleted")},
        errors=(412,),
    ),
)

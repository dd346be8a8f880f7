"""Operations on who may do what in a project, and who did."""

from api.control.audit import PAGE_DEFAULT
from api.openapi.answers.accounts import AuditPage
from api.openapi.operation import Access, Answer, Operation, Parameter
from infra.catalog.audit import PAGE_MAX

TAG = "Projects and keys"

OPERATIONS = (
    Operation(
        "GET",
        "/firndb/audit",
        "listAudit",
        "Who changed what in the project, the newest first",
        TAG,
        Access.ADMIN,
        {200: Answer("A page", AuditPage)},
        parameters=(
            Parameter(
                "limit",
                "Entries of a page.",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": PAGE_MAX,
                    "default": PAGE_DEFAULT,
                },
            ),
            Parameter("since", "Only from this time on, as ISO 8601."),
            Parameter("before", "`next` of the page before."),
        ),
    ),
)

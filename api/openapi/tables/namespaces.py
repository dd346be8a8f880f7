"""Operations of the data plane on whole namespaces."""

from api.openapi import parameters as p
from api.openapi.answers.shape import Empty
from api.openapi.answers.vectors import NamespaceList, NamespaceShown
from api.openapi.operation import Access, Answer, Operation
from ingest.bodies import CreateNamespaceBody

TAG = "Namespaces"

OPERATIONS = (
    Operation(
        "POST",
        "/namespaces",
        "createNamespace",
        "Create a namespace",
        TAG,
        Access.WRITE,
        {200: Answer("It is there", NamespaceShown, p.DECIDED)},
        request=CreateNamespaceBody,
        errors=(409,),
        description="Not needed before writing: the first write of a namespace creates it.",
    ),
    Operation(
        "GET",
        "/namespaces",
        "listNamespaces",
        "List namespaces, a page at a time",
        TAG,
        Access.READ,
        {200: Answer("A page", NamespaceList, p.SEEN)},
        parameters=(p.PREFIX, p.LIMIT, p.PAGE_TOKEN, *p.READ),
    ),
    Operation(
        "GET",
        "/namespaces/{name}",
        "describeNamespace",
        "Describe a namespace",
        TAG,
        Access.READ,
        {200: Answer("The namespace", NamespaceShown, p.SEEN)},
        parameters=p.READ,
    ),
    Operation(
        "DELETE",
        "/namespaces/{name}",
        "deleteNamespace",
        "Delete a namespace and all of its records",
        TAG,
        Access.WRITE,
        {200: Answer("It is gone", Empty, p.DECIDED)},
    ),
)

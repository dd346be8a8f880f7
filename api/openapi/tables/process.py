"""What machines and people ask of the process itself; no key is needed."""

from api.openapi.answers.process import Alive, ApiDescription, NotReady, Ready
from api.openapi.operation import Access, Answer, Operation

TAG = "Process"

OPERATIONS = (
    Operation(
        "GET",
        "/healthz",
        "isAlive",
        "Is the process alive?",
        TAG,
        Access.PUBLIC,
        {200: Answer("Yes", Alive)},
    ),
    Operation(
        "GET",
        "/readyz",
        "isReady",
        "May the process get requests?",
        TAG,
        Access.PUBLIC,
        {200: Answer("Yes", Ready), 503: Answer("Not yet", NotReady)},
    ),
    Operation(
        "GET",
        "/metrics",
        "showMetrics",
        "Metrics for Prometheus",
        TAG,
        Access.PUBLIC,
        {200: Answer("In its text format", media="text/plain")},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "describeApi",
        "This description",
        TAG,
        Access.PUBLIC,
        {200: Answer("An OpenAPI 3.1 document", ApiDescription)},
    ),
    Operation(
        "GET",
        "/docs",
        "showDocs",
        "This description as an interactive page",
        TAG,
        Access.PUBLIC,
        {200: Answer("A page", media="text/html")},
    ),
    Operation(
        "GET",
        "/docs/{file}",
        "showDocsFile",
        "What that page is made of",
        TAG,
        Access.PUBLIC,
        {200: Answer("A script, a style or a picture", media="*/*")},
        errors=(404,),
    ),
)

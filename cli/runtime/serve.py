"""`firndb serve`: the embedded deployment, or all roles of the distributed one."""

from cli.runtime.embedded import serve_embedded
from cli.runtime.folder import owned
from cli.runtime.parts import check_deployment
from cli.runtime.process import run_process
from infra.settings import Settings


def run_serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT, once everything is flushed and closed."""
    check_deployment(settings)
    with owned(settings.data):
        if settings.kafka is None:
            run_process(serve_embedded, settings)
        else:
            from cli.runtime.supervisor import serve_distributed

            run_process(serve_distributed, settings)

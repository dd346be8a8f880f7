"""The same three services as containers, for machines that have Docker instead of Java and Go.

Not run where it was written: that machine has no Docker engine. The names and arguments were
read in the sources of testcontainers 4.15 and of the images' entry points.
"""

from __future__ import annotations

from collections.abc import Callable

from testcontainers.community.kafka import KafkaContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer

from infra.services import postgres, s3
from infra.services.kafka import MESSAGE_BYTES_MAX
from infra.services.process import free_port
from infra.services.service import Service

READY_TIMEOUT_S = 120  # the first time the image is pulled


class ContainerService:
    """A Service in a container; its host port is fixed, so that a restart keeps the address."""

    def __init__(
        self,
        name: str,
        container: DockerContainer,
        inner_port: int,
        settings: Callable[[str], dict[str, str]],
        prepare: Callable[[str], object] = lambda address: None,
    ) -> None:
        """`settings` and `prepare` take the address; `prepare` runs after the first start."""
        self.name = name
        self._port = free_port()
        self._container = container.with_bind_ports(inner_port, self._port)
        self._settings = settings
        self._prepare = prepare
        self._created = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        return self._settings(self.address)

    @property
    def pid(self) -> int | None:
        """The pid that the engine's host knows, which on a Mac is a virtual machine."""
        if not self._created:
            return None
        inner = self._container.get_wrapped_container()
        inner.reload()
        return int(inner.attrs["State"]["Pid"]) or None

    def start(self) -> None:
        if not self._created:
            self._container.start()
            self._created = True
            self._prepare(self.address)
        elif self.pid is None:
            self._container.get_wrapped_container().start()

    def stop(self) -> None:
        """Remove the container and its data: it is asked for at the end of a session only."""
        if self._created:
            self._container.stop()
            self._created = False

    def kill(self) -> None:
        if self.pid is not None:
            self._container.get_wrapped_container().kill()


def container_for(name: str) -> Service:
    """The container that stands in for the local service `name`; not started yet."""
    return {"kafka": _kafka, "s3": _s3, "postgres": _postgres}[name]()


def _kafka() -> Service:
    # The image that testcontainers is tested with.
    container = KafkaContainer("confluentinc/cp-kafka:7.6.0").with_kraft()
    container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    container.with_env("KAFKA_MESSAGE_MAX_BYTES", str(MESSAGE_BYTES_MAX))
    return ContainerService("kafka", container, 9093, lambda address: {"FIRNDB_KAFKA": address})


def _s3() -> Service:
    container = DockerContainer(f"versity/versitygw:{s3.VERSION}")
    container.with_envs(ROOT_ACCESS_KEY=s3.ACCESS_KEY, ROOT_SECRET_KEY=s3.SECRET_KEY)
    # A folder that the image creates; arguments after it would replace the entry point's own.
    container.with_envs(VGW_BACKEND="posix", VGW_BACKEND_ARG="/tmp/vgw")
    return ContainerService(
        "s3",
        container,
        7070,
        lambda address: s3.settings_for(f"http://{address}"),
        prepare=lambda address: s3.make_bucket(f"http://{address}"),
    )


def _postgres() -> Service:
    container = PostgresContainer(
        "postgres:17", username=postgres.USER, password=postgres.USER, dbname=postgres.DATABASE
    )
    url = f"postgresql+psycopg://{postgres.USER}:{postgres.USER}@{{}}/{postgres.DATABASE}"
    return ContainerService(
        "postgres", container, 5432, lambda address: {"FIRNDB_CATALOG": url.format(address)}
    )

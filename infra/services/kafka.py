"""A real single-node Apache Kafka (KRaft: broker and controller in one JVM) from Maven jars.

Durability: with one node the in-sync set is that node, so `acks=all` means "in the page cache
of one machine". It survives a crash of the broker (tests kill it with SIGKILL), not a power cut;
three brokers give that in production. fsync per batch would close the gap for one node at the
price of a disk flush per produce, which no test needs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.services.process import (
    ServiceError,
    Unavailable,
    accepts_connections,
    download,
    require_tool,
)
from infra.services.service import LocalService

PACKAGE = Path(__file__).parent
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
JAVA_MIN = 17  # Kafka 4 brokers are compiled for it
INSTALL_JAVA = f"install Java {JAVA_MIN} or newer (Debian: apt-get install openjdk-17-jre-headless)"
INSTALL_MAVEN = "install Maven (Debian: apt-get install maven)"

# A vector batch is at most a few MB; 16 MiB leaves the producer's own limit the one that speaks.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
START_TIMEOUT_S = 90.0
STOP_GRACE_S = 15.0

# A laptop's broker: few threads and a heap that carries 16 MiB messages; serial GC and the first
# compiler tier only, because the start-up time is what a developer waits for.
JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxDirectMemorySize=128m",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes={message_bytes}
replica.fetch.max.bytes={message_bytes}
socket.request.max.bytes=104857600
# One node: every internal topic has one copy.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=2
# Tests start consumers one by one; waiting for more members would only cost seconds.
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
# A broker killed with SIGKILL cannot register again before its old session has run out: the
# default of 9 s makes a restart take 11.4 s here.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
"""


def fetch(cache: Path) -> Path:
    """Folder with the broker's jars under `cache`; downloads them with Maven the first time."""
    pom = PACKAGE / "pom.xml"
    version = pom.read_text().partition("<kafka.version>")[2].partition("<")[0]
    jars = cache.resolve() / f"kafka-{version}"
    if jars.is_dir():
        return jars
    maven = require_tool("mvn", INSTALL_MAVEN)
    require_java()
    # A folder of its own, renamed when whole: two first runs at once, or a Ctrl-C, leave no half.
    pending = cache.resolve() / f"kafka-{uuid.uuid4().hex}.part"
    pending.mkdir(parents=True)
    try:
        goal = f"{DEPENDENCY_PLUGIN}:copy-dependencies"
        where = [f"--file={pom}", f"-DoutputDirectory={pending}"]
        download([maven, "-q", "-B", *where, goal, "-DincludeScope=runtime"])
        if not jars.is_dir():
            pending.rename(jars)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
    return jars


def require_java() -> str:
    """Path of a `java` new enough for the broker, or Unavailable."""
    java = require_tool("java", INSTALL_JAVA)
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA_MIN:
        raise Unavailable(f"{java} is older than Kafka 4 needs: {INSTALL_JAVA}")
    return java


class Kafka(LocalService):
    """One broker; `address` is its bootstrap server. Topics are never created by accident."""

    name = "kafka"

    def __init__(
        self,
        folder: Path,
        cache: Path,
        port: int | None = None,
        controller_port: int | None = None,
    ) -> None:
        super().__init__(folder, [port, controller_port])
        self._cache = cache

    @property
    def settings(self) -> dict[str, str]:
        return {"FIRNDB_KAFKA": self.address}

    def _launch(self) -> None:
        java = require_java()
        jars = fetch(self._cache)
        data = self.folder / "data"
        config = self.folder / "server.properties"
        config.write_text(
            PROPERTIES.format(
                broker=self.ports[0],
                controller=self.ports[1],
                data=data,
                message_bytes=MESSAGE_BYTES_MAX,
            )
        )
        command = [java, *JVM, f"-Dlog4j2.configurationFile={PACKAGE / 'log4j2.properties'}"]
        # Native codecs are unpacked there; after SIGKILL nobody would remove them from /tmp.
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        command += [f"-Djava.io.tmpdir={scratch}", "-cp", f"{jars}/*"]
        if not (data / "meta.properties").exists():
            self._format(command, config)
        self.child.spawn([*command, "kafka.Kafka", str(config)])
        self.child.wait_ready(self.answers, START_TIMEOUT_S)

    def _format(self, java: list[str], config: Path) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=": one id in 64 begins with "-" and would be taken for an option.
        tool = ["kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}"]
        done = subprocess.run(
            [*java, *tool, "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError(f"Kafka could not format {self.folder}:\n{done.stdout[-2000:]}")

    def answers(self) -> bool:
        """True when the broker gives metadata that names itself (it is then unfenced)."""
        if not accepts_connections(self.ports[0]):
            return False
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False

    def stop(self) -> None:
        self.child.stop(STOP_GRACE_S)

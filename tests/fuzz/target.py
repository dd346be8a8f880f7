"""What is attacked: a real server with an index, watched for life, memory and complaints."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.e2e.deployments import Deployment
from tests.e2e.processes import KEY

MIB = 1 << 20


@dataclass
class Target:
    """`host`: of an index of dimension 3, with scheme. log_seen: characters of the log that were
    looked at.
    """

    deployment: Deployment
    host: str
    log_seen: int = 0

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.host)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def resident_bytes(self) -> int:
        process = self.deployment.process.process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10

    def check_alive(self) -> None:
        """It answers, does its work, and has logged no traceback."""
        process = self.deployment.process.process
        assert process is not None
        assert process.poll() is None, self.log()[-4000:]
        with httpx.Client(base_url=self.host, headers={"Api-Key": KEY}, timeout=60) as client:
            assert client.get("/healthz").status_code == 200
            vectors = [{"id": "alive", "values": [1, 2, 3]}]
            written = client.post("/vectors/upsert", json={"vectors": vectors, "namespace": "well"})
            assert written.status_code == 200, written.text
            found = client.post(
                "/query", json={"vector": [1, 2, 3], "topK": 1, "namespace": "well"}
            ).json()
            assert [m["id"] for m in found["matches"]] == ["alive"]
        new, self.log_seen = self.log()[self.log_seen :], len(self.log())
        assert "Traceback" not in new, new[max(0, new.index("Traceback") - 3000) :][:6000]

    def log(self) -> str:
        return (self.deployment.folder / "firndb.log").read_text(errors="replace")

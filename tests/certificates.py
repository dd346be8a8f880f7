"""Certificates for tests of TLS, of an authority of their own."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True)
class Certified:
    """A server's files, and what its clients trust. `settings` are FirnDB's."""

    certificate: Path
    key: Path
    authority: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_cert": str(self.certificate), "tls_key": str(self.key)}

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def certified(folder: Path, authority: trustme.CA | None = None) -> Certified:
    """Writes (over) the files of a certificate for this machine."""
    authority = authority or trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certified(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    files.certificate.write_bytes(chain)
    files.key.write_bytes(issued.private_key_pem.bytes())
    files.authority.write_bytes(authority.cert_pem.bytes())
    return files

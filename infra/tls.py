"""TLS of this server: the certificate that it shows, renewed while it runs; and how its own
commands trust just that one.
"""

import asyncio
import logging
import re
import ssl
from pathlib import Path

from core.errors import ConfigError
from infra.settings import Settings

log = logging.getLogger(__name__)

# HTTP/1.1 first: clients that speak both get REST, gRPC clients offer only h2.
ALPN = ["http/1.1", "h2"]
RENEWED_CHECK_S = 10.0
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class ServerTls:
    """The certificate and key of two PEM files. `context` is of every listening socket; connections
    that are made after a renewal get the new certificate.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """`ConfigError` naming the file that is not what it should be."""
        self._files = (certificate, key)
        self._seen = self._times()
        self.context = self._read()

    @classmethod
    def of(cls, settings: Settings) -> "ServerTls | None":
        """None: this server speaks plain HTTP."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    async def follow(self) -> None:
        """Take renewed files up, until cancelled. Bad ones are reported, and the old stay."""
        while True:
            await asyncio.sleep(RENEWED_CHECK_S)
            self.renew_if_changed()

    def renew_if_changed(self) -> None:
        times = self._times()
        if times == self._seen:
            return
        self._seen = times
        try:
            self._read()  # the live context must not be left half renewed by a bad file
            self.context.load_cert_chain(*self._files, password=_no_password)
        except (ConfigError, OSError, ValueError) as error:
            log.error("the renewed certificate is not taken: %s", error)
        else:
            log.info("the certificate %s was renewed", self._files[0])

    def _read(self) -> ssl.SSLContext:
        certificate, key = self._files
        for setting, file in (("FIRNDB_TLS_CERT", certificate), ("FIRNDB_TLS_KEY", key)):
            try:
                file.read_bytes()
            except OSError as error:
                raise ConfigError(f"{setting}={file}: cannot be read: {error.strerror}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(ALPN)
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"FIRNDB_TLS_CERT={certificate} and FIRNDB_TLS_KEY={key} are not a certificate "
                f"(PEM, the server's own first) and its private key: {error}"
            ) from error
        return context

    def _times(self) -> tuple[int, ...]:
        try:
            return tuple(file.stat().st_mtime_ns for file in self._files)
        except OSError:  # between two files of a renewal
            return ()


def own_server_only(certificate: Path) -> ssl.SSLContext:
    """For commands that talk to the server beside them: trusts exactly the first certificate of the
    file, whatever name it is for. `ConfigError` when there is none.
    """
    try:
        found = _CERTIFICATE.search(certificate.read_text())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority
        context.load_verify_locations(cadata=found[0] if found else "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the server's certificate {certificate} is no use: {error}") from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a passphrase, and nobody is there to type it")

"""The API over TLS: REST and gRPC on one port, and a certificate that is renewed meanwhile."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import trustme

from core.errors import ConfigError
from infra.settings import Settings
from infra.tls import ServerTls, own_server_only
from tests.api.gateway import running_gateway
from tests.api.grpc_client import grpc_client, vectors
from tests.certificates import certified


async def test_rest_and_grpc_on_one_port(tmp_path: Path) -> None:
    files = certified(tmp_path)
    async with running_gateway(tmp_path, trust=files.trust(), **files.settings) as gateway:
        assert gateway.url.startswith("https://")
        host = (await gateway.create())["host"]
        assert host.startswith("https://127.0.0.1:")
        credentials = grpc.ssl_channel_credentials(files.authority.read_bytes())
        async with grpc_client(host, credentials=credentials) as raw:
            done, _ = await raw.ask("Upsert", vectors=vectors(1000))
            assert done.upserted_count == 1000
            found, _ = await raw.ask("Query", vector=[1, 2, 3], top_k=1000, include_values=True)
            assert len(found.matches) == 1000
        answer = await gateway.ask("GET", "/vectors/fetch?ids=v1", host=host)
        assert answer.json()["vectors"]["v1"]["values"] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "http/1.1"),
        (["http/1.1"], "http/1.1"),
        (["h2"], "h2"),
        ([], None),
    ],
)
async def test_clients_that_speak_both_get_rest(
    tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    files = certified(tmp_path)
    async with running_gateway(tmp_path, trust=files.trust(), **files.settings) as gateway:
        trust = files.trust()
        if offered:
            trust.set_alpn_protocols(offered)
        assert await in_thread(_negotiated, gateway.url, trust) == (chosen, "TLSv1.3")
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await in_thread(_negotiated, gateway.url, trust))[1] == "TLSv1.2"


Negotiated = tuple[str | None, str | None]


async def in_thread(function: Callable[..., Negotiated], *arguments: object) -> Negotiated:
    return await asyncio.to_thread(function, *arguments)


def _negotiated(url: str, trust: ssl.SSLContext) -> Negotiated:
    parts = urlsplit(url)
    assert parts.hostname is not None
    with (
        socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname=parts.hostname) as secure,
    ):
        return secure.selected_alpn_protocol(), secure.version()


async def test_a_renewed_certificate_is_taken_up_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = certified(tmp_path)
    old, renewed = files.trust(), trustme.CA()
    async with running_gateway(tmp_path, trust=old, **files.settings) as gateway:
        tls = gateway.gateway._tls
        assert tls is not None
        tls.renew_if_changed()
        await in_thread(_negotiated, gateway.url, old)
        files.key.write_text("-----BEGIN PRIVATE KEY-----\nhalf")
        tls.renew_if_changed()
        assert "the renewed certificate is not taken" in caplog.text
        await in_thread(_negotiated, gateway.url, old)
        files = certified(tmp_path, renewed)
        os.utime(files.key, (1, 1))  # however fast this test is, the times differ
        tls.renew_if_changed()
        await in_thread(_negotiated, gateway.url, files.trust())
        with pytest.raises(ssl.SSLCertVerificationError):
            await in_thread(_negotiated, gateway.url, old)


def test_commands_trust_exactly_the_servers_certificate(tmp_path: Path) -> None:
    files = certified(tmp_path)
    (tmp_path / "other").mkdir()
    other = certified(tmp_path / "other")
    server = ServerTls(files.certificate, files.key).context

    def handshake(trusted: Path) -> None:
        near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = own_server_only(trusted).wrap_bio(near, far)
        answering = server.wrap_bio(far, near, server_side=True)
        for _ in range(3):
            for side in (client, answering):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        client.getpeercert()

    handshake(files.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other.certificate)
    with pytest.raises(ConfigError, match="is no use"):
        own_server_only(files.key)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    files = certified(tmp_path)
    (tmp_path / "other").mkdir()
    other = certified(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"FIRNDB_TLS_KEY=.*none.pem: cannot be read: No such"):
        ServerTls(files.certificate, tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="not a certificate"):
        ServerTls(files.certificate, other.key)
    with pytest.raises(ConfigError, match="not a certificate"):
        ServerTls(files.key, files.key)
    for one in ({"tls_cert": "x"}, {"tls_key": "x"}):
        with pytest.raises(ConfigError, match="give both FIRNDB_TLS_CERT and FIRNDB_TLS_KEY"):
            Settings.load({"data": tmp_path, **one})
    assert ServerTls.of(Settings.load({"data": tmp_path})) is None


def test_hosts_of_indexes_change_their_scheme_by_themselves(tmp_path: Path) -> None:
    files = certified(tmp_path)
    secure = Settings.load({"data": tmp_path, **files.settings})
    assert secure.url_at(8080) == "https://127.0.0.1:8080"
    assert secure.scheme == "https"
    assert Settings.load({"data": tmp_path}).scheme == "http"

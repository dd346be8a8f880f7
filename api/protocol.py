"""HTTP/1.1 as uvicorn speaks it, with a bound on what comes before the body."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Known clients send less than 4 KiB of headers; the parser takes URLs of 64 KiB (a fetch of some
# hundred long ids). It has no bound of its own for headers, and grows with them.
HEAD_BYTES_MAX = 256 << 10


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A head that goes on for too long ends it with 400."""

    _reading_head = True
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._reading_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response(f"The URL and headers exceed {HEAD_BYTES_MAX} bytes.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading_head, self._head_bytes = True, 0
        super().on_message_complete()

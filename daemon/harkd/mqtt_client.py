"""paho's client, which also tells why it could not read.

In: bytes from the broker. Out: what paho makes of them, and the first of them, and OpenSSL's reason
where reading failed. On the thread that connects, then on paho's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

import paho.mqtt.client as paho

NETWORK_GONE_S = 10.0
"""A connection on which the broker's machine confirms nothing for so long is given up."""
MOST_BYTES = 256 * 1024
"""The largest packet that is taken in: nobody's message is to fill our memory."""
FIRST_BYTES = 5


class Client(paho.Client):
    """paho's client, with what it forgets: its socket, what came first, and why reading failed.

    It overrides three private methods of paho 2.2; tests hold that they are called.
    """

    tcp: socket.socket | None = None
    """The socket, also of a WebSocket; TLS takes it over."""
    heard = b""
    """The first bytes from the broker."""
    fault = ""
    """Why reading failed: OpenSSL's reason, in capitals, or our words; empty where it did not."""

    def _create_socket_connection(self) -> socket.socket:
        self.tcp = super()._create_socket_connection()
        # Without it, a message lies in the kernel while the network is away, for as long as
        # keepalive, and is delivered late as if it were new: the broker counts its expiry anew.
        milliseconds = int(NETWORK_GONE_S * 1000)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return self.tcp

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MOST_BYTES:
            # MQTT 5 brokers are asked not to send it; the others cannot be asked.
            self.fault = f"it sent {bufsize // 1024} KiB in one message"
            raise ConnectionAbortedError(self.fault)
        try:
            data = super()._sock_recv(bufsize)
        except ssl.SSLError as error:
            self.fault = str(error.reason or "")
            raise
        if len(self.heard) < FIRST_BYTES:
            self.heard += data[:FIRST_BYTES]
        return data

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError:
            # In TLS 1.3 a broker refuses our certificate after the handshake: the reason is there
            # to be read though nothing can be written any more (RFC 8446, 4.4.2.4).
            if not self.heard and isinstance(self.socket(), ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    self._sock_recv(1)
            raise

"""An MQTT broker of our own on loopback, so that the first run needs no other service.

The `amqtt` package (extra ``broker``) in a thread with its own event loop. It speaks MQTT 3.1.1
only, keeps nothing on disk, and lets only this machine in.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

from harkd.errors import BrokerError

LOOPBACK = "127.0.0.1"
START_S = 10.0
STOP_S = 3.0


def is_taken(port: int) -> bool:
    """Tell whether something listens on this port of loopback already."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


class EmbeddedBroker:
    """A broker on ``127.0.0.1:port`` in a thread.

    Args:
        port: TCP port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            BrokerError: amqtt is not installed, or the port cannot be had.
        """
        try:
            import amqtt.broker  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise BrokerError(
                "no broker is set, and the embedded one is not installed",
                'set mqtt.host, or: pip install "harkd[broker]"',
            ) from error
        self._thread.start()
        if not self._ready.wait(START_S) or self._error:
            raise BrokerError(
                f"the embedded broker cannot listen on {LOOPBACK}:{self._port} ({self._error})",
                "set another mqtt.port, or set mqtt.host to a broker",
            ) from self._error

    def stop(self) -> None:
        """Stop listening and end the thread."""
        if self._loop and self._stop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - told by start(), or too late to matter
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from amqtt.broker import Broker

        # What a client does wrong is told with tracebacks, asyncio's own at shutdown.
        for name in ("amqtt", "transitions", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        config: dict[str, Any] = {
            "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self._port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
        broker = Broker(config)
        greet_subscribers_only(broker)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await broker.start()
        self._ready.set()
        await self._stop.wait()
        await broker.shutdown()


def greet_subscribers_only(broker: Any) -> None:
    """Let amqtt's broker send what is retained to those alone who have subscribed to it.

    amqtt 0.12 sends each client that connects what is retained on everybody's subscriptions
    (`for topic in self._subscriptions` in its broker.py). One that only sends something and hangs
    up, as `mosquitto_pub` does, then leaves that unread; so the kernel resets the connection, and
    amqtt loses what was sent. Measured: of 60 commands, 1 arrived, while somebody had subscribed
    to `#`.
    """
    send = broker._publish_retained_messages_for_subscription

    async def send_to_subscriber(subscription: tuple[str, int], session: Any) -> None:
        subscribers = broker._subscriptions.get(subscription[0], ())
        if any(each.client_id == session.client_id for each, _ in subscribers):
            await send(subscription, session)

    broker._publish_retained_messages_for_subscription = send_to_subscriber

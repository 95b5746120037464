"""Ports on which something answers that is no broker, or a bad one."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def listener(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """A port on which each connection is answered by a function; yields the port."""
    kept = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    kept.append(client)
                    with contextlib.suppress(OSError):
                        answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in kept:
                client.close()


def say_nothing(_client: socket.socket) -> None:
    pass

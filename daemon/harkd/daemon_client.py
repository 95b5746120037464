"""Asks the running daemon how it is, over its HTTP pages.

In: the `http` section. Out: what a page says. Loads little, so that a health check is quick. Runs
on the caller's thread, for no longer than it is told to wait.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

from harkd.errors import DaemonError
from harkd.settings import HttpSettings

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a daemon listens that does
"""Where to ask a daemon that listens at all addresses."""
MOST_BYTES = 1 << 20
START = "start it: harkd run, or sudo systemctl start harkd"


def ask(settings: HttpSettings, path: str, timeout_s: float) -> tuple[bool, dict[str, Any]]:
    """Return whether a page says yes, and its JSON object.

    Raises:
        DaemonError: There is no page to read, or it is none of harkd's.
    """
    if not settings.enabled:
        raise DaemonError("http.enabled is false, so the daemon tells nothing", "set it to true")
    if not settings.port:
        raise DaemonError(
            "http.port is 0, so nobody knows where the daemon listens", "set it to a port"
        )
    host, port = ANYWHERE.get(settings.host, settings.host), settings.port
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
    except ConnectionRefusedError as error:
        raise DaemonError(f"nothing listens at {where}: the daemon does not run", START) from error
    except TimeoutError as error:
        raise DaemonError(
            f"the daemon at {where} did not answer within {timeout_s:g} s",
            "look into its log, and restart it",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", "") or str(error) or type(error).__name__
        raise DaemonError(
            f"the daemon at {where} cannot be asked ({what})", "check http.host and http.port"
        ) from error
    finally:
        connection.close()
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if answer.status not in (200, 503) or not isinstance(told, dict):
        raise DaemonError(
            f"what listens at {where} is no harkd of this version (status {answer.status})",
            "set http.port to a port that is free, here and for the daemon",
        )
    return answer.status == 200, told

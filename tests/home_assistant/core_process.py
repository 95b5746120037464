"""A real Home Assistant core with its MQTT integration, driven by lines of JSON.

Runs as a program in the environment that ``scripts/test-home-assistant`` makes, not in harkd's:
``core_process.py FOLDER BROKER_PORT``. In, on stdin: ``{"do": "states" | "call" | …}``. Out, on
stdout: one line of JSON for each answer, after one that says that the integration is loaded. The
core is the whole one but for the user interface and what else it would load without being asked.
Its log goes to stderr.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from homeassistant import bootstrap
from homeassistant.config_entries import SOURCE_USER
from homeassistant.core import Event, HomeAssistant
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.runner import RuntimeConfig


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


async def start(folder: Path) -> HomeAssistant:
    bootstrap.DEFAULT_INTEGRATIONS = set()
    bootstrap.CRITICAL_INTEGRATIONS = set()
    config = RuntimeConfig(str(folder), skip_pip=True, log_no_color=True)
    core = await bootstrap.async_setup_hass(config)
    if core is None:
        raise SystemExit("Home Assistant does not start")
    await core.async_start()
    return core


async def connect(core: HomeAssistant, port: int) -> None:
    """Add the MQTT integration as its user would, unless a run before has."""
    if not core.config_entries.async_entries("mqtt"):
        flow = core.config_entries.flow
        form = await flow.async_init("mqtt", context={"source": SOURCE_USER})
        login = {"broker": "127.0.0.1", "port": port}
        done = await flow.async_configure(form["flow_id"], login)
        if done["type"] != "create_entry":
            raise SystemExit(f"the MQTT integration was not added: {done}")
    await core.async_block_till_done()


def entities(core: HomeAssistant) -> dict[str, Any]:
    """What its user sees of each entity of MQTT."""
    registry = entity_registry.async_get(core)
    devices = device_registry.async_get(core)
    found = {}
    for entry in registry.entities.values():
        state = core.states.get(entry.entity_id)
        device = devices.async_get(entry.device_id) if entry.device_id else None
        found[entry.entity_id] = {
            "state": state.state if state else None,
            "attributes": dict(state.attributes) if state else {},
            "unique_id": entry.unique_id,
            "name": entry.name,
            "category": entry.entity_category,
            "device": {
                "name": device.name,
                "model": device.model,
                "manufacturer": device.manufacturer,
                "sw_version": device.sw_version,
            }
            if device
            else None,
        }
    return found


async def serve(core: HomeAssistant, changes: list[Any], calls: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        match asked.pop("do"):
            case "states":
                answer({"entities": entities(core), "changes": changes, "calls": calls})
            case "call":
                await core.services.async_call(**asked, blocking=True)
                answer({})
            case "rename":
                registry = entity_registry.async_get(core)
                registry.async_update_entity(asked["entity_id"], name=asked["name"])
                answer({})
            case "stop":
                return


async def main(folder: Path, port: int) -> None:
    core = await start(folder)
    changes: list[Any] = []

    def note(event: Event[Any]) -> None:
        new = event.data["new_state"]
        if new is not None:
            changes.append([time.time(), new.entity_id, new.state, dict(new.attributes)])

    calls: list[Any] = []

    def note_call(event: Event[Any]) -> None:
        data = event.data["service_data"]
        calls.append([f"{event.data['domain']}.{event.data['service']}", data.get("entity_id")])

    core.bus.async_listen("state_changed", note)
    core.bus.async_listen("call_service", note_call)
    await connect(core, port)
    answer({"started": True})
    try:
        await serve(core, changes, calls)
    finally:
        await core.async_stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

"""Holds lines of the log against docs/log-schema.json."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema

SCHEMA_FILE = Path(__file__).parents[1] / "docs" / "log-schema.json"


def schema() -> dict[str, Any]:
    """Returns the schema as it is published."""
    read: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return read


@functools.cache
def _validator() -> Callable[[dict[str, Any]], None]:
    compiled: Callable[[dict[str, Any]], None] = fastjsonschema.compile(schema())
    return compiled


def held_to_schema(line: str) -> dict[str, Any]:
    """Returns the object of a line; raises AssertionError where it breaks the schema."""
    entry: dict[str, Any] = json.loads(line)
    try:
        _validator()(entry)
    except fastjsonschema.JsonSchemaException as error:
        raise AssertionError(f"{error}: {line}") from None
    return entry

"""The converter's own error, of harkd's tree: the command line prints it the same way."""

from __future__ import annotations

from harkd.errors import ModelError


class ConvertError(ModelError):
    """A source is of another architecture, or its parts do not fit together."""

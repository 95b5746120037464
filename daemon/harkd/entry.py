"""How a command line of harkd ends: errors that a user can mend are one message and an exit code.

In: a click group and the program's name. Out: what it prints, and SystemExit. Loads nothing heavy.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

import click

from harkd.errors import HarkdError


def run(commands: click.Group, program: str) -> None:
    """Run what the command line says; 1 or 78 is an error, 2 wrong words, 130 Ctrl-C."""
    # A file name or a text may have what the locale cannot write; a closed stream is no stream.
    sys.stdout = writable(sys.stdout)
    sys.stderr = writable(sys.stderr)
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except HarkdError as error:
        click.echo(f"{program}: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"{program}: {where}{error.strerror}", err=True)
        sys.exit(1)


def writable(stream: TextIO | None) -> TextIO:
    """Return the stream, made to write any text; one that leads nowhere in the place of None."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream

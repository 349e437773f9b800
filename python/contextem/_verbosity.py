"""What ``--verbose`` shows: the records of the loggers ``contextem.<module>``, on stderr, above progress bars.

The package itself only logs, see `logging`; who uses it in Python shows its records as those of any other library::

    logging.basicConfig(level="INFO")
    logging.getLogger("contextem").setLevel("DEBUG")
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

_FORMAT = "{asctime}.{msecs:03.0f} {name}: {message}"
_SHOWN = "contextem.verbose"  # key in the meta of a click context: how often the option was given so far


class AboveBars(logging.Handler):
    """Writes records to stderr, and progress bars anew below them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        from tqdm import tqdm

        try:
            with tqdm.external_write_mode(file=sys.stderr):
                click.echo(self.format(record), err=True)
        except Exception:  # noqa: BLE001 - a record that cannot be shown stops nothing
            self.handleError(record)


def _show(context: click.Context, _: click.Parameter, count: int) -> None:
    """Show what the loggers of this package tell until the command ends; the more often it is asked for, the more."""
    if not count:
        return
    logger, before = logging.getLogger("contextem"), context.meta.get(_SHOWN, 0)
    if not before:
        handler, level = AboveBars(), logger.level
        handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S", style="{"))
        logger.addHandler(handler)

        def quiet() -> None:
            logger.removeHandler(handler)
            logger.setLevel(level)

        context.find_root().call_on_close(quiet)
    context.meta[_SHOWN] = before + count
    logger.setLevel(logging.INFO if before + count == 1 else logging.DEBUG)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    is_eager=True,
    callback=_show,
    help="Say on stderr what is done; twice: and how long each stage takes.",
)


class VerboseCommand(click.Command):
    """A command with the option --verbose."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        verbose_option(self)


class VerboseGroup(click.Group):
    """A group whose commands have the option --verbose."""

    command_class: type[click.Command] | None = VerboseCommand

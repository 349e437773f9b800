"""Packages that come with an extra of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Say which extra to install where an import in the block fails.

    Parameters
    ----------
    name : str
        The extra.

    Raises
    ------
    ModuleNotFoundError
        If a package is not there.

    Examples
    --------
    >>> with needs_extra("parquet"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    ModuleNotFoundError: no_such_package: is not installed, it comes with pip install 'contextem[parquet]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"{error.name}: is not installed, it comes with pip install 'contextem[{name}]'"
        raise ModuleNotFoundError(text, name=error.name) from error

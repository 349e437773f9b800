"""The site: it builds without warnings and without a network, has everything public, and its links lead somewhere."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from sphinx.util.inventory import InventoryFile

import contextem
from contextem.cli import main

ROOT = Path(__file__).parents[1]
BUILD = """
import socket, sys
def refuse(*_):
    raise OSError("the site is built without a network")
socket.socket.connect = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    strict = ("-W", "--keep-going", "-n", "-q", "-d", str(folder / "doctrees"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *strict, str(ROOT / "python/docs"), str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


class Page(HTMLParser):
    """Identifiers and links of a page, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        for key in ("href",) if tag == "link" else ("src",) if tag in {"img", "script"} else ():
            if values.get(key):
                self.loaded.append(values[key])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page by its path."""
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


def test_every_link_leads_somewhere(pages):
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.is_file() or (
                target.fragment and file in pages and unquote(target.fragment) not in pages[file].names
            ):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_pages_load_nothing_from_elsewhere(pages):
    elsewhere = [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc]
    assert elsewhere == []


@pytest.fixture(scope="module")
def documented(site: Path) -> dict[str, set[str]]:
    """Names of the inventory by what they are."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {kind: set(names) for kind, names in inventory.data.items()}


def test_every_public_name_is_in_the_reference(documented):
    names = documented["py:function"] | documented["py:class"] | documented["py:module"] | documented["py:exception"]
    assert {f"contextem.{name}" for name in contextem.__all__} - names == set()


def public_modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(contextem.__path__, "contextem."):
        parts = module.name.split(".")[1:]
        if not any(part.startswith("_") for part in parts) and parts[-1] not in {"cli", "commands", "labels", "batch"}:
            yield module.name


def test_every_module_is_in_the_reference(documented):
    assert set(public_modules()) - documented["py:module"] - {"contextem.simulate"} == set()


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=name) as context:
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None
                yield from commands(found, f"{name} {each}")


def test_every_command_and_option_is_in_the_reference(documented):
    known = documented["std:cmdoption"]
    expected = {
        f"{re.sub(' ', '-', name)}.{option}"
        for name, command in commands(main, "contextem")
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name != "help"
        for option in parameter.opts
    }
    assert len(expected) > 100
    missing = {each for each in expected if each not in known}
    assert missing == set(), sorted(known)[:20]

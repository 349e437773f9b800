"""contextem label serve | add-expert | import | export: labelling by several experts from the shell."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contextem._options import Said, file_options, read_micrograph, rule_options
from contextem._verbosity import VerboseGroup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contextem.columns import Columns
    from contextem.labels.votes import VoteStore
    from contextem.sidecar import Settings

PORT = 8763
UNSURE_NAME = "unsure"
"""What a vote is called in tables that is for no class."""

_store = click.option(
    "--store",
    "path",
    type=click.Path(path_type=Path),
    default=Path("labels.db"),
    show_default=True,
    help="File of images, experts and votes.",
)


@click.group(cls=VerboseGroup)
def label() -> None:
    """Label the columns of micrographs by the votes of several experts, who do not see each other's."""


@label.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@_store
@file_options
@click.option(
    "--columns",
    "tables",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Columns of each of FILES, in their order: what `classify --export hdf5` wrote, or a CSV with row and column "
    "in px; found in the image by default.",
)
@click.option(
    "--order",
    type=click.Choice(("random", "uncertain")),
    default="random",
    show_default=True,
    help="Order of work: at random, or first what the classification in --columns is least sure of.",
)
@click.option("--expert", "experts", multiple=True, help="Name of an expert to invite; repeat for several.")
@click.option("--chair", default="chair", show_default=True, help="Name of the chair, who is invited if there is none.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address of this machine that is listened on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 for any that is free.")
@click.option("--name", "names", multiple=True, help="Another name by which browsers call this machine.")
def serve(
    files: tuple[Path, ...],
    path: Path,
    said: Said,
    tables: tuple[Path, ...],
    order: str,
    experts: tuple[str, ...],
    chair: str,
    listen: str,
    port: int,
    names: tuple[str, ...],
) -> None:
    """Serve the page on which experts label the columns of FILES and of what is in the store already.

    What is known of the specimen and the recording is read from YAML files as by `contextem classify`.  Links that
    invite new experts are printed once, and not kept.
    """
    from contextem.labels.server import serve as serve_store
    from contextem.labels.votes import VoteStore

    if tables and len(tables) != len(files):
        raise ValueError(f"--columns: expected one for each of {len(files)} FILES, got {len(tables)}")
    links: dict[str, str] = {}
    with VoteStore(path) as store:
        for file, table in zip(files, tables or (None,) * len(files), strict=True):
            click.echo(_add(store, file, said.of(file), table, order))
        if not store.images():
            raise ValueError(f"FILES: expected at least one micrograph, as there is none in {path} yet, got none")
        known = {each.name: each.role for each in store.experts()}
        invited = dict.fromkeys(experts, "expert") | ({} if "chair" in known.values() else {chair: "chair"})
        for name, role in invited.items():
            if name in known:
                click.echo(f"{name} was invited before; a new link: contextem label add-expert {name} --renew")
            else:
                links[name] = store.add_expert(name, role)
    if not _is_this_machine(listen):
        click.echo(
            f"Warning: what is sent to and from {listen}, links too, is not encrypted; use a network that you trust",
            err=True,
        )

    def started(address: str) -> None:
        click.echo(f"{address} serves {path}; end with Ctrl-C")
        for name, token in links.items():
            click.echo(f"  link of {name}, shown this once: {address}/join/{token}")

    serve_store(path, host=listen, port=port, names=names, started=started)


@label.command("add-expert")
@click.argument("name")
@_store
@click.option("--chair", "role", flag_value="chair", help="One who sees the votes of all and decides; votes do not.")
@click.option("--renew", is_flag=True, help="A new link for somebody invited before; the old one ends.")
@click.option("--url", default=f"http://127.0.0.1:{PORT}", show_default=True, help="Address that the server printed.")
def add_expert(name: str, path: Path, role: str | None, renew: bool, url: str) -> None:
    """Invite an expert: print a link, once."""
    with _opened(path) as store:
        token = store.add_expert(name, role or "expert", renew=renew)
    click.echo(f"link of {name}, shown this once: {url.rstrip('/')}/join/{token}")


@label.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_store
@click.option("--image", "name", required=True, help="Name of the image.")
@click.option("--expert", required=True, help="Whose votes they are; added if need be.")
def import_votes(file: Path, path: Path, name: str, expert: str) -> None:
    """Take votes from FILE, a CSV with row and column in px and class: one of the five, or unsure.

    A vote is for the nearest column within 0.8 Å; where there is none, one is added for this expert.  The same file is
    taken once.
    """
    import numpy as np

    from contextem.columns import CLASSES
    from contextem.labels.actions import Add, Vote
    from contextem.labels.votes import SAME_COLUMN

    with _opened(path) as store:
        info = {each.name: each for each in store.images()}.get(name)
        if info is None:
            raise ValueError(f"--image: expected an image in {path}, got {name}")
        positions, words = _table(file, "class")
        index = {word: number for number, word in enumerate((*CLASSES, UNSURE_NAME))}
        for line, word in enumerate(words, 2):
            if word not in index:
                raise ValueError(f"{file}: expected one of {', '.join(index)} as class, got {word!r} in line {line}")
        if expert not in {each.name for each in store.experts()}:
            store.add_expert(expert)
        who = next(each for each in store.experts() if each.name == expert)
        client = f"import-{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}"
        if store.next_sequence(who, client) > 1:
            raise ValueError(f"{file}: its votes were taken before")
        number = _nearest(store.columns(info.id, who), positions, SAME_COLUMN / info.sampling)
        taken, lines = np.unique(number[number >= 0], return_counts=True)
        if (lines > 1).any():
            twice = np.flatnonzero(number == taken[lines > 1][0])[:2] + 2
            raise ValueError(f"{file}: expected one line for a column, got lines {twice[0]} and {twice[1]}")
        new = np.flatnonzero(number < 0)
        items: list[Any] = [Add(*positions[k].tolist()) for k in new]
        number[new] = store.next_column(info.id, who) + np.arange(len(new))
        labels = np.array([index[word] for word in words], np.int64)
        items += [Vote(tuple(number[labels == k].tolist()), int(k)) for k in np.unique(labels)]
        for result in store.cast(info.id, who, client, 1, items).results if items else ():
            if "refused" in result:
                raise ValueError(f"{file}: {result['refused']}")
    click.echo(f"{len(words)} votes of {expert} on {name}, {len(new)} of them on columns that were not found")


@label.command()
@_store
@click.option("--image", "names", multiple=True, help="Name of an image; all by default.")
@rule_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
def export(path: Path, names: tuple[str, ...], rule: str, quorum: int, output: Path, overwrite: bool) -> None:
    """Write the labels of each image as NAME.labels.csv.

    Row and column in px, class, shares of the votes for the five classes, votes, agreement and status.
    """
    from contextem.labels.votes import RULES

    with _opened(path) as store:
        images = {info.name: info for info in store.images()}
        for name in names:
            if name not in images:
                raise ValueError(f"--image: expected an image in {path}, got {name}")
        targets = {name: output / f"{Path(name).name}.labels.csv" for name in names or images}
        for target in targets.values():
            if target.exists() and not overwrite:
                raise FileExistsError(f"{target}: exists already; choose another folder with -o or allow --overwrite")
        for name, target in targets.items():
            store.export(images[name].id, target, partial(RULES[rule], quorum=quorum))
            click.echo(f"wrote {target}")


def _opened(path: Path) -> VoteStore:
    """Open a store that is there."""
    from contextem.labels.votes import VoteStore

    if not path.exists():
        raise FileNotFoundError(
            f"--store: expected a store of votes, found no file {path}; `contextem label serve` makes it"
        )
    return VoteStore(path)


def _add(store: VoteStore, file: Path, said: Settings, table: Path | None, order: str) -> str:
    """Add a file with its columns, unless it is there; say what was done."""
    from contextem.columns import find_columns
    from contextem.labels.votes import fingerprint

    context = None if said.host is None else said.context()
    micrograph = read_micrograph(file, said, None if context is None else context.lattice_constant, ())
    for info in store.images():
        if table is None and info.name == file.stem and info.sha256 == fingerprint(micrograph):
            return f"{file.name}: in the store already, {info.columns} columns"
    entropy: NDArray[np.float32] | None = None
    origin = "found"
    if table is None:
        columns = find_columns(micrograph, context)
    else:
        columns, entropy, origin = _read_columns(table)
    told: Mapping[str, Any] | None = None if context is None else context.with_recording(micrograph).to_dict()
    store.add_image(
        micrograph,
        columns,
        None if told is None else dict(told),
        file.stem,
        origin=origin,
        order=order,
        entropy=entropy,
    )
    return f"{file.name}: {len(columns)} columns"


def _read_columns(path: Path) -> tuple[Columns, NDArray[np.float32] | None, str]:
    """Return columns, entropies where a model told them, and where they come from."""
    from contextem.classification import Classification
    from contextem.columns import Columns

    if path.suffix.lower() in (".h5", ".hdf5"):
        result = Classification.load(path)
        return Columns(result.positions), result.entropy, "classification"
    return Columns(_table(path)[0]), None, "csv"


def _table(path: Path, *further: str) -> tuple[NDArray[np.float64], list[str]]:
    """Return row and column (N, 2) of a CSV, px, and the words of one more of its columns."""
    import numpy as np

    wanted = ("row", "column", *further)
    positions, words = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(wanted) <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{path}: expected a CSV with the columns {', '.join(wanted)}, got {reader.fieldnames}"
                )
            for line in reader:
                try:
                    positions.append((float(line["row"]), float(line["column"])))
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{path}: expected numbers as row and column, got none in line {reader.line_num}"
                    ) from None
                words.append(line[further[0]] or "" if further else "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV, got another file ({error})") from error
    return np.array(positions, np.float64).reshape(-1, 2), words


def _nearest(columns: Any, positions: NDArray[np.float64], reach: float) -> NDArray[np.int64]:
    """Return the number of the nearest column of each position, -1 where none is within reach, px."""
    import numpy as np
    from scipy.spatial import cKDTree

    if not len(columns) or not len(positions):
        return np.full(len(positions), -1)
    distance, which = cKDTree(columns.positions).query(positions)
    return np.where(distance <= reach, columns.ids[which], -1)


def _is_this_machine(address: str) -> bool:
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False

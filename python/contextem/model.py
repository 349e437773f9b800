"""A trained classifier: what it was trained on, how it is fed, the files it is kept in.

    moments (N, J) -> contrast features (N, F)      see `contextem.contrast`
    context        -> context features (Fc,)        see `contextem.context`
    both           -> posterior (N, 5)              see `contextem.attention`, then `contextem.sites`
                   -> familiarity (N,)              log of how much likelier a column of the stated specimen is to look
                                                    so than an odd mixture of columns, neighbours and contexts; lower
                                                    where it looks like no column, see `contextem.typicality`

The weights are safetensors, everything else is JSON beside them; ``model.pt2`` is the same network for `torch.export`.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from contextem import __version__
from contextem._arrays import check_real
from contextem._bounds import read_json
from contextem._output import whole_file
from contextem._schema import SCHEMAS, SchemaError, check_schema
from contextem._threads import thread_count
from contextem.attention import CONTEXT_TOKENS, Classifier, ModelConfig, build_classifier
from contextem.columns import CLASSES
from contextem.context import ENERGIES, Context
from contextem.contrast import contrast_blocks
from contextem.remarks import ExtrapolationWarning
from contextem.sites import Surroundings, agree_on_sites, shared_odds

logger = logging.getLogger(__name__)

COMPARED = ("without_context", "paper", "paper_without_context")
"""Classifiers kept beside a model, in folders of these names, to compare it with: without context, and as published."""


def compared_folders(folder: Path) -> dict[str, Path]:
    """Return where a model and those of `COMPARED` have their place, by the names they are listed under.

    Examples
    --------
    >>> list(compared_folders(Path("model")))
    ['with context', 'without context', 'paper', 'paper without context']
    """
    return {"with context": folder, **{place.replace("_", " "): folder / place for place in COMPARED}}


class Prediction(NamedTuple):
    """What a classifier says of N columns.

    Attributes
    ----------
    probabilities : (N, 5) float32
        Posterior of the classes, in the order of `contextem.columns.CLASSES`.
    patch_probabilities : (N, 5) float32
        The same before the columns of a neighbourhood have decided on their sites.
    familiarity : (N,) float32
        Log of the odds that column, neighbours and context belong together, lowered where they look unusual; 0 for a
        model that does not judge it.
    """

    probabilities: NDArray[np.float32]
    patch_probabilities: NDArray[np.float32]
    familiarity: NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A trained classifier with the facts of its training."""

    network: Classifier
    info: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        """Kind, basis, patch radius, context encoding and size of the network."""
        return self.network.config

    @property
    def unknown_below(self) -> float:
        """Familiarity below which a column is called unknown; minus infinity where that was not learnt."""
        return float(self.info.get("unknown_below", -np.inf))

    def unknown(self, familiarity: NDArray[np.float32], complete: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which columns of one micrograph are unknown: less familiar than known ones are among their like.

        An image that as a whole is less familiar than simulated ones, as real ones are, sets its own standard.

        Parameters
        ----------
        familiarity : (N,) float32
            From `predict`.
        complete : (N,) bool
            Columns whose patch lies in the image; no others are judged.

        Returns
        -------
        (N,) bool
        """
        if not complete.any():
            return np.zeros(len(familiarity), bool)
        usual = float(self.info.get("usual_familiarity", -np.inf))
        shift = min(0.0, float(np.median(familiarity[complete])) - usual)
        return np.asarray(complete & (familiarity < self.unknown_below + shift))

    @property
    def misfit_below(self) -> float:
        """Mean familiarity of an image below which its context is doubted; minus infinity where that was not learnt."""
        return float(self.info.get("misfit_below", -np.inf))

    def context_features(self, context: Context) -> NDArray[np.float32]:
        """Return the context as this model reads it.

        Parameters
        ----------
        context : Context
            With energy and detector.

        Returns
        -------
        (Fc,) float32
            Empty for a model without context.

        Raises
        ------
        ValueError
            If the model has not been trained with this energy and detector.

        Warns
        -----
        ExtrapolationWarning
            If it has not been trained on the host or a dopant.
        """
        known = self.info.get("training")
        if known and context.energy is not None and context.detector is not None:
            energy = min(ENERGIES, key=lambda each: abs(each - (context.energy or 0.0)))
            condition = f"{energy / 1e3:g} keV {context.detector.kind}"
            if condition not in known["conditions"]:
                raise ValueError(
                    f"context: expected one the model was trained with ({', '.join(known['conditions'])}), "
                    f"got {condition}; train one with `contextem train`"
                )
            strange = {context.host} - set(known["hosts"]) | set(context.dopants) - set(known["dopants"])
            if strange:
                warnings.warn(
                    f"the model was not trained on {' and '.join(sorted(strange))}; its probabilities are extrapolated",
                    ExtrapolationWarning,
                    stacklevel=3,
                )
        if self.config.context == "none":
            context.vector("roles")  # energy and detector are asked for all the same
            return np.zeros(0, np.float32)
        return context.vector(self.config.context)

    def predict(
        self,
        contrast: NDArray[np.float32],
        context: NDArray[np.float32],
        around: Surroundings | None = None,
        *,
        device: str | None = None,
        batch_size: int = 512,
    ) -> Prediction:
        """Return the posterior of the five classes, and how familiar each column is.

        Parameters
        ----------
        contrast : (N, F) float32
            From `contextem.contrast.contrast_features`.
        context : (Fc,) or (N, Fc) float32
            One for all the columns, or one a column.
        around : Surroundings, optional
            A `Neighbourhood`, for example; with it the columns of a neighbourhood and of a grain decide together which
            sublattice is the metal's, see `contextem.sites`.
        device : str, optional
            A torch device such as "cpu" or "cuda"; by default the CPU.
        batch_size : int
            Columns at a time.

        Returns
        -------
        Prediction
            Rows of the probabilities add up to one.
        """
        network = self.network.to(device or "cpu").eval()
        target = network.mean.device
        shared_context = context.ndim == 1
        alone = np.empty((len(contrast), len(CLASSES)), np.float32)
        familiarity = np.empty(len(contrast), np.float32)
        shared = torch.from_numpy(np.array(context, np.float32)).to(target)

        def judge(start: int) -> None:
            part = slice(start, start + batch_size)
            with torch.inference_mode():
                logits, known = network(
                    torch.from_numpy(contrast[part]).to(target), shared[None] if shared_context else shared[part]
                )
                alone[part] = torch.softmax(logits, dim=1).cpu().numpy()
                familiarity[part] = known.cpu().numpy()

        starts = range(0, len(contrast), batch_size)
        if target.type == "cpu" and torch.get_num_threads() == 1 and min(len(starts), thread_count()) > 1:
            # torch is held to one thread, so that its sums are always the same: batches go side by side
            with ThreadPoolExecutor(min(len(starts), thread_count())) as pool:
                list(pool.map(judge, starts))
        else:
            for start in starts:
                judge(start)
        strength = float(self.info.get("site_strength", 0.0))
        if around is None or strength == 0.0:
            return Prediction(alone, alone, familiarity)
        return Prediction(agree_on_sites(alone, shared_odds(alone, around), strength), alone, familiarity)

    def save(self, folder: str | os.PathLike[str], *, export: bool = True) -> None:
        """Write model.safetensors (weights, normalisation), model.json (how to read them), model.pt2 (torch.export).

        Parameters
        ----------
        folder : path-like
            Made if it is not there.
        export : bool
            Whether to write model.pt2, which nothing in this package reads.
        """
        folder = Path(folder)
        header = {"schema": SCHEMAS["model"], "classes": list(CLASSES), "version": __version__}
        facts = {**header, "config": asdict(self.config), **self.info}
        with whole_file(folder / "model.safetensors") as temporary:
            save_file({name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}, temporary)
        if export:
            with whole_file(folder / "model.pt2") as temporary:
                torch.export.save(self.exported(), temporary)
        with whole_file(folder / "model.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def exported(self) -> torch.export.ExportedProgram:
        """Return the network as a program of (B, F) contrast and (B, Fc) context features, for any B."""
        network = self.network.cpu().eval()
        example = (
            torch.zeros(3, sum(contrast_blocks(self.config.basis).values())),
            torch.zeros(3, sum(CONTEXT_TOKENS[self.config.context])),
        )
        batch = torch.export.Dim("columns")
        return torch.export.export(network, example, dynamic_shapes=({0: batch}, {0: batch}))


def packaged_model() -> Path:
    """Folder of the model that comes with the package."""
    return Path(str(files("contextem") / "data" / "model"))


def find_model(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that `load_model` takes for a path, or for the name of a packaged model."""
    folder = packaged_model() if path is None else Path(path)
    return packaged_model() / str(path) if not folder.exists() and str(path) in COMPARED else folder


def load_model(path: str | os.PathLike[str] | None = None) -> Model:
    """Load a trained classifier.

    Parameters
    ----------
    path : path-like, optional
        A folder with model.safetensors and model.json, as `contextem train` writes it; "paper" or "without_context" for
        the packaged ones of these names; the packaged model by default.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If the folder lacks one of the two files.
    ValueError
        If the files are not those of such a model, were written by a version that keeps others, or were made for other
        classes.

    Examples
    --------
    >>> import contextem as ctm
    >>> ctm.load_model().config.n_max
    10
    """
    folder = find_model(path)
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"model: expected a folder with {name} in it, got {folder}; `contextem train` writes one"
            )
    facts: dict[str, Any] = {}
    try:
        facts = read_json(folder / "model.json")
        check_schema("model", facts.pop("schema", 1), f"model: {folder}", facts.get("version"))
        if (classes := facts.pop("classes")) != list(CLASSES):
            raise ValueError(f"expected the classes {', '.join(CLASSES)}, got {', '.join(map(str, classes))}")
        config = ModelConfig(**facts.pop("config"))
        _check_facts(facts)
        _check_sizes(config, folder / "model.safetensors")
        network = build_classifier(config)
        network.load_state_dict(load_file(folder / "model.safetensors"))
        if not all(bool(torch.isfinite(values).all()) for values in network.state_dict().values()):
            raise ValueError("expected finite weights, got NaN or infinity")
    except SchemaError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())
        by = f", written by contextem {facts['version']}" if "version" in facts else ""
        raise ValueError(
            f"model: expected the files `contextem train` writes, got others in {folder}{by}: {detail[:400]}; train it "
            "again, or install the version of contextem that wrote it"
        ) from error
    logger.info("model %s, in %s", facts.get("name", "unnamed"), folder.name)
    return Model(network.eval(), facts)


def _check_sizes(config: ModelConfig, weights: Path) -> None:
    """Raise ValueError unless a file has the weights that a network needs; nothing is read or made but their sizes."""
    with torch.device("meta"):
        wanted = {name: list(value.shape) for name, value in build_classifier(config).state_dict().items()}
    with safe_open(weights, "pt") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if (odd := set(wanted) ^ set(stored)) != set():
            raise ValueError(f"expected the weights of this network, they differ in {', '.join(sorted(odd))}")
        for name, each in stored.items():
            if each.get_shape() != wanted[name] or each.get_dtype() != "F32":
                raise ValueError(
                    f"expected {name} as F32 of shape {wanted[name]}, got {each.get_dtype()} of {each.get_shape()}"
                )


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise ValueError or TypeError unless what is said of a model, apart from its network, is what is made use of."""
    for name in ("unknown_below", "usual_familiarity", "misfit_below", "site_strength"):
        check_real(name, facts.get(name, 0.0))
    training = facts.get("training") or {}
    for name in ("hosts", "dopants", "conditions") if training else ():
        if not isinstance(training[name], list) or not all(isinstance(each, str) for each in training[name]):
            raise TypeError(f"training: expected a list of words as {name}, got {training[name]!r}")

"""What the votes of several experts say together: labels by rule, the experts' quality, and how far they agree.

Expert e says class l of column i, or is unsure, which is kept but counts for no class.  With n_il the experts who say l
of column i, and n_i all who say a class of it, the share of a class is s_il = n_il / n_i.  A column is agreed on by

    majority      n_i >= quorum  and  max_l s_il >= share,      unanimity the same with share 1,
    Dawid-Skene   n_i >= quorum  and  max_k T_ik >= certainty,

disputed where it has votes for classes and is not agreed on, unlabelled where it has none.

Dawid and Skene (https://doi.org/10.2307/2346806) take experts to err independently of each other, each in their own
way: where the class is k, expert e says l with probability pi_ekl.  With p_k the share of class k among the columns,
the posterior T_ik of column i follows by Bayes' rule, and from the posteriors follow p and pi, in turns,

    T_ik   = p_k prod_e pi_ekl(i,e) / sum_j p_j prod_e pi_ejl(i,e)      over the experts who say a class l(i, e) of i
    p_k    = (sum_i T_ik + a) / (N + 5 a)
    pi_ekl = (sum_i T_ik [e says l of i] + a) / (sum_i T_ik [e says a class of i] + 5 a)

from T_ik = s_ik on.  The smoothing a stands for votes seen before any: it keeps an expert who said no double vacancy
among three from never saying one.  No turn lowers the objective, the log likelihood of the votes and, for a > 0, the
logarithm of Dirichlet priors with 1 + a on p and on every row of pi, up to a constant:

    sum_i log sum_k p_k prod_e pi_ekl(i,e)  +  a sum_k log p_k  +  a sum_ekl log pi_ekl.

Agreement is one less the disagreement seen over that by chance, of columns with two or more votes, n = sum_i n_i votes
in all, n_l = sum_i n_il for a class:

    alpha = 1 - (n - 1) sum_i (n_i^2 - sum_l n_il^2) / (n_i - 1)  /  (n^2 - sum_l n_l^2)
    kappa = 1 - sum_i n_i (1 - sum_l s_il^2)  /  (sum_i (n_i - 1)  (1 - sum_l (n_l / n)^2))

Alpha is Krippendorff's for nominal data (https://doi.org/10.1080/19312450709336664), kappa Fleiss'
(https://doi.org/10.1037/h0031619), in the form for unequal numbers of votes of Fleiss and Cuzick (Appl. Psychol. Meas.
3, 537, 1979), which is Fleiss' own where all columns have as many.  Intervals are percentiles of the bootstrap
(https://doi.org/10.1214/aos/1176344552), which draws columns, for they are what chance has chosen, not the experts.
Columns with the same votes count alike, so that drawing them is a multinomial draw of how often each pattern occurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import logsumexp, xlogy

from contextem.columns import CLASSES

UNSURE = len(CLASSES)
"""Label of a vote that abstains."""

_C = len(CLASSES)
_BLOCK = 4_000_000  # weights drawn at a time, 32 MB


@dataclass(frozen=True, eq=False)
class VoteTable:
    """Votes of experts for classes of columns, each expert's last word on each column.

    Parameters
    ----------
    column : array_like, shape (V,)
        Number of the column voted on.
    expert : array_like, shape (V,)
        Number of the expert; one vote at most for a column.
    label : array_like, shape (V,)
        Index into `contextem.columns.CLASSES`, or `UNSURE`.

    Raises
    ------
    TypeError
        If there are other values than integers.
    ValueError
        If a shape or a value does not fit, or an expert votes twice on a column.

    Examples
    --------
    >>> votes = VoteTable([7, 7, 9], [1, 2, 1], [0, 1, UNSURE])
    >>> len(votes), votes.columns.tolist(), votes.experts.tolist()
    (3, [7, 9], [1, 2])
    """

    column: NDArray[np.int64]
    expert: NDArray[np.int64]
    label: NDArray[np.int8]

    def __init__(self, column: ArrayLike, expert: ArrayLike, label: ArrayLike) -> None:
        given = {name: _integers(name, v) for name, v in (("column", column), ("expert", expert), ("label", label))}
        n = len(given["column"])
        for name, values in given.items():
            if len(values) != n:
                raise ValueError(f"{name}: expected shape ({n},), one value a vote, got {values.shape}")
        wrong = (given["label"] < 0) | (given["label"] > UNSURE)
        if wrong.any():
            raise ValueError(
                f"label: expected classes 0 to {_C - 1}, or {UNSURE} for unsure, got {given['label'][wrong][0]}"
            )
        for name, values in given.items():
            object.__setattr__(self, name, values.astype(np.int8) if name == "label" else values)
        row, place = self._places
        cells = np.sort(row * len(self.experts) + place)
        if len(twice := cells[1:][np.diff(cells) == 0]):
            at, who = divmod(int(twice[0]), len(self.experts))
            raise ValueError(
                f"expert: expected one vote of an expert for a column, got more of expert {self.experts[who]} for "
                f"column {self.columns[at]}: keep the last"
            )

    def __len__(self) -> int:
        return len(self.column)

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """(N,) columns voted on, ascending."""
        return np.unique(self.column)

    @cached_property
    def experts(self) -> NDArray[np.int64]:
        """(E,) experts who voted, ascending."""
        return np.unique(self.expert)

    @property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the column and the expert of each vote stand among all of them."""
        return np.searchsorted(self.columns, self.column), np.searchsorted(self.experts, self.expert)


@dataclass(frozen=True, eq=False)
class Consensus:
    """Labels that a rule makes of votes.

    Attributes
    ----------
    column : (N,) int64
        Numbers of the columns, in the order asked for.
    label : (N,) int8
        Index into `contextem.columns.CLASSES`; -1 where disputed or unlabelled.
    shares : (N, 5) float64
        Shares of the votes, see `soft_labels`.
    votes : (N,) int64
        Votes for a class; unsure ones are not among them.
    status : (N,) str
        "agreed", "disputed" or "unlabelled".
    experts : (E,) int64
        Numbers of the experts, ascending.
    quality : (E,) float64 or None
        How often each expert is right on columns like these, sum_k p_k pi_ekk, where the rule estimates it.
    """

    column: NDArray[np.int64]
    label: NDArray[np.int8]
    shares: NDArray[np.float64]
    votes: NDArray[np.int64]
    status: NDArray[np.str_]
    experts: NDArray[np.int64]
    quality: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, eq=False)
class DawidSkene(Consensus):
    """Labels by the model of Dawid and Skene, and what it says of the experts.

    Attributes
    ----------
    posterior : (N, 5) float64
        Probability of each class; the priors for a column without votes.
    confusion : (E, 5, 5) float64
        Probability that an expert says class l (last axis) where the class is k.
    priors : (5,) float64
        Share of each class among the columns voted on.
    objective : (iterations,) float64
        What is maximised, see the module; never falls.
    converged : bool
        Whether the posteriors stood still within the tolerance.
    """

    posterior: NDArray[np.float64]
    confusion: NDArray[np.float64]
    priors: NDArray[np.float64]
    objective: NDArray[np.float64]
    converged: bool


def soft_labels(votes: VoteTable, columns: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each class among the votes of each column (N, 5); zeros without votes for a class.

    Parameters
    ----------
    votes : VoteTable
        Unsure votes count for no class.
    columns : (N,) int
        Numbers of the columns, those without votes too.

    Raises
    ------
    ValueError
        If columns has a number twice, or lacks one that is voted on.

    Examples
    --------
    >>> votes = VoteTable([7, 7, 7, 9], [1, 2, 3, 1], [0, 0, 2, UNSURE])
    >>> soft_labels(votes, [7, 8, 9]).round(2).tolist()
    [[0.67, 0.0, 0.33, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    return _shares(_tally(votes, _numbers(votes, columns)))


def majority(votes: VoteTable, columns: ArrayLike, quorum: int = 2, share: float = 2 / 3) -> Consensus:
    """Label the columns on which enough experts voted and a majority of them agrees.

    Parameters
    ----------
    votes : VoteTable
        Unsure votes count neither for a class nor towards the quorum.
    columns : (N,) int
        Numbers of the columns, those without votes too.
    quorum : int
        Least votes of a label, from 1.
    share : float
        Least share of the votes, above 1/2, at most 1.

    Returns
    -------
    Consensus

    Raises
    ------
    ValueError
        If quorum or share is out of range, or columns has a number twice or lacks one that is voted on.

    Examples
    --------
    >>> votes = VoteTable([7, 7, 7, 8, 8, 9], [1, 2, 3, 1, 2, 1], [0, 0, 2, 1, 0, 4])
    >>> found = majority(votes, [7, 8, 9, 10])
    >>> found.label.tolist(), found.status.tolist()
    ([0, -1, -1, -1], ['agreed', 'disputed', 'disputed', 'unlabelled'])
    """
    numbers = _numbers(votes, columns)
    _check_above_half("share", share)
    tally = _tally(votes, numbers)
    label, status = _settled(tally.sum(axis=1), _shares(tally), quorum, share)
    return Consensus(numbers, label, _shares(tally), tally.sum(axis=1), status, votes.experts, None)


def unanimity(votes: VoteTable, columns: ArrayLike, quorum: int = 2) -> Consensus:
    """Label the columns on which enough experts voted and all who did agree: `majority` with a share of 1.

    Parameters
    ----------
    votes : VoteTable
        Unsure votes count neither for a class, nor against one, nor towards the quorum.
    columns : (N,) int
        Numbers of the columns, those without votes too.
    quorum : int
        Least votes of a label, from 1.

    Returns
    -------
    Consensus

    Raises
    ------
    ValueError
        As `majority`.

    Examples
    --------
    >>> unanimity(VoteTable([7, 7, 8, 8], [1, 2, 1, 2], [0, 0, 1, 0]), [7, 8]).label.tolist()
    [0, -1]
    """
    return majority(votes, columns, quorum, 1.0)


def dawid_skene(
    votes: VoteTable,
    columns: ArrayLike,
    quorum: int = 2,
    certainty: float = 0.95,
    *,
    smoothing: float = 0.1,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Label columns by the likeliest class, with the errors of the experts estimated from their votes.

    Expectation and maximisation in turns, from the shares of the votes on; see the module for the formulas.
    Three experts or more can be told apart; of two who disagree, votes hardly tell who errs.

    Parameters
    ----------
    votes : VoteTable
        Unsure votes are left out: that an expert is unsure is taken to say nothing of the class.
    columns : (N,) int
        Numbers of the columns, those without votes too.
    quorum : int
        Least votes of a label, from 1.
    certainty : float
        Least posterior of a label, above 1/2, at most 1.
    smoothing : float
        Votes a added to each cell of each expert's confusion matrix, and columns added to each class; from 0.
    iterations : int
        Most turns, from 1.
    tolerance : float
        Change of all posteriors at which to stop; from 0.

    Returns
    -------
    DawidSkene
        Posteriors follow by Bayes' rule from the confusion matrices and priors beside them.

    Raises
    ------
    ValueError
        If a parameter is out of range, or columns has a number twice or lacks one that is voted on.

    Examples
    --------
    Four columns of each class; the first two experts are right, the third always says metal:

    >>> truth = np.repeat(np.arange(5), 4)
    >>> said = np.concatenate([truth, truth, 0 * truth])
    >>> votes = VoteTable(np.tile(np.arange(20), 3), np.repeat([1, 2, 3], 20), said)
    >>> found = dawid_skene(votes, np.arange(20))
    >>> bool((found.label == truth).all()), found.quality.round(1).tolist()
    (True, [0.9, 0.9, 0.2])
    """
    numbers = _numbers(votes, columns)
    _check_above_half("certainty", certainty)
    for name, value in (("smoothing", smoothing), ("tolerance", tolerance)):
        if not 0.0 <= value < float("inf"):
            raise ValueError(f"{name}: expected a finite number from 0, got {value}")
    _check_from_one("iterations", iterations)
    tally = _tally(votes, numbers)
    patterns, which, times = _patterns(_sure(_table(votes)))
    said = _one_hot(patterns)
    posterior, experts = _shares(_counts(patterns)), len(votes.experts)
    objective: list[float] = []
    converged = False
    while not converged and len(objective) < iterations:
        before = posterior
        mass = (said.T @ (times[:, None] * posterior)).reshape(experts, _C, _C).transpose(0, 2, 1)
        confusion = _normalised(mass + smoothing)
        priors = _normalised(times @ posterior + smoothing)
        with np.errstate(divide="ignore"):  # what never happens, where nothing is smoothed
            log_priors, log_confusion = np.log(priors), np.log(confusion)
        joint = log_priors + said @ log_confusion.transpose(0, 2, 1).reshape(-1, _C)
        evidence = logsumexp(joint, axis=1, keepdims=True)
        posterior = np.exp(joint - evidence)
        smooth = xlogy(smoothing, priors).sum() + xlogy(smoothing, confusion).sum()
        objective.append(float(times @ evidence[:, 0] + smooth))
        converged = bool(np.max(abs(posterior - before), initial=0.0) <= tolerance)
    everywhere = np.tile(priors, (len(numbers), 1))
    seen = tally.any(axis=1)
    everywhere[seen] = posterior[which[np.searchsorted(votes.columns, numbers[seen])]]
    label, status = _settled(tally.sum(axis=1), everywhere, quorum, certainty)
    quality = np.einsum("k,ekk->e", priors, confusion)
    return DawidSkene(
        numbers, label, _shares(tally), tally.sum(axis=1), status, votes.experts, quality,
        everywhere, confusion, priors, np.array(objective), converged,
    )  # fmt: skip


def krippendorff_alpha(
    votes: VoteTable, weights: NDArray[np.floating[Any]] | None = None
) -> float | NDArray[np.float64]:
    """Return Krippendorff's alpha for nominal data: 1 where experts agree, 0 where they do as by chance.

    Parameters
    ----------
    votes : VoteTable
        Any expert may have left out any column; unsure votes count as left out.
    weights : (..., N), optional
        How often each of `votes.columns` counts; once by default.

    Returns
    -------
    float, or (...) float64
        NaN without two votes on a column, or where all votes are for one class.

    Examples
    --------
    >>> votes = VoteTable([1, 1, 2, 2, 3, 3, 4], [1, 2, 1, 2, 1, 2, 1], [0, 0, 2, 2, 2, 3, 1])
    >>> round(krippendorff_alpha(votes), 3)
    0.545
    """
    tally, n = _paired(votes)
    apart = (n**2 - (tally**2).sum(axis=1)) / np.maximum(n - 1, 1)
    sums = _summed(np.column_stack([tally, apart]), weights)
    by_class = sums[..., :-1]
    total = by_class.sum(axis=-1)
    return _one_less(sums[..., -1] * (total - 1), total**2 - (by_class**2).sum(axis=-1))


def fleiss_kappa(votes: VoteTable, weights: NDArray[np.floating[Any]] | None = None) -> float | NDArray[np.float64]:
    """Return Fleiss' kappa, generalised to unequal numbers of votes: 1 where experts agree, 0 as by chance.

    Parameters
    ----------
    votes : VoteTable
        Columns with two or more votes for classes count, by any of the experts.
    weights : (..., N), optional
        How often each of `votes.columns` counts; once by default.

    Returns
    -------
    float, or (...) float64
        NaN without two votes on a column, or where all votes are for one class.

    Examples
    --------
    >>> votes = VoteTable([1, 1, 2, 2, 3, 3, 4], [1, 2, 1, 2, 1, 2, 1], [0, 0, 2, 2, 2, 3, 1])
    >>> round(fleiss_kappa(votes), 3)
    0.455
    """
    tally, n = _paired(votes)
    apart = (n**2 - (tally**2).sum(axis=1)) / np.maximum(n, 1)
    sums = _summed(np.column_stack([tally, np.maximum(n - 1, 0), apart]), weights)
    by_class = sums[..., :-2]
    total = by_class.sum(axis=-1)
    chance = total**2 - (by_class**2).sum(axis=-1)
    return _one_less(sums[..., -1] * total**2, sums[..., -2] * chance)


def expert_confusion(votes: VoteTable, weights: NDArray[np.floating[Any]] | None = None) -> NDArray[np.float64]:
    """Count what each two experts say of the columns that both voted on.

    Parameters
    ----------
    votes : VoteTable
        Unsure votes are left out.
    weights : (..., N), optional
        How often each of `votes.columns` counts; once by default.

    Returns
    -------
    (..., E, E, 5, 5) float64
        At [a, b, k, l] the columns that expert a calls k and expert b calls l, experts in the order of
        `votes.experts`; [a, a] has the numbers of a's votes on its diagonal.

    Examples
    --------
    >>> votes = VoteTable([1, 1, 2, 2, 3], [1, 2, 1, 2, 1], [0, 0, 2, 3, 4])
    >>> counts = expert_confusion(votes)
    >>> counts[0, 1, 2, 3], counts[0, 1].sum(), np.diag(counts[0, 0]).tolist()
    (np.float64(1.0), np.float64(2.0), [1.0, 0.0, 1.0, 0.0, 1.0])
    """
    table, experts = _sure(_table(votes)), len(votes.experts)
    flat = np.ones((1, len(table))) if weights is None else np.reshape(weights, (-1, len(table)))
    said = _one_hot(table)
    found = np.zeros((len(flat), experts, experts, _C, _C))
    for expert, label in np.ndindex(experts, _C):
        here = np.flatnonzero(table[:, expert] == label)
        found[:, expert, :, label] = (flat[:, here] @ said[here]).reshape(-1, experts, _C)
    return found.reshape((() if weights is None else weights.shape[:-1]) + found.shape[1:])


class Statistic(Protocol):
    """A number, or an array of them, that depends on a vote table through how often each column counts."""

    def __call__(self, votes: VoteTable, weights: NDArray[np.float64], /) -> float | NDArray[np.float64]:
        """Return (..., *shape) for weights (..., N) of `votes.columns`."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic of the votes with its uncertainty.

    Attributes
    ----------
    value : float or array
        Of all columns.
    interval_95 : (low, high)
        Each like the value, 2.5 and 97.5 % of the draws that it is defined for; NaN where it is for none.
    """

    value: float | NDArray[np.float64]
    interval_95: tuple[float | NDArray[np.float64], float | NDArray[np.float64]]


def bootstrap(votes: VoteTable, statistic: Statistic, repeats: int = 1000, seed: int = 0) -> Estimate:
    """Estimate a statistic with a 95 % interval, by drawing columns with replacement.

    Parameters
    ----------
    votes : VoteTable
        Votes on the columns that are drawn.
    statistic : callable
        `krippendorff_alpha`, `fleiss_kappa`, `expert_confusion` or another `Statistic`.
    repeats : int
        Draws, from 1.
    seed : int
        Of the draws.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If repeats is less than 1.

    Examples
    --------
    >>> said = np.repeat([[0, 0], [2, 2], [2, 3]], (60, 30, 10), axis=0)
    >>> votes = VoteTable(np.repeat(np.arange(100), 2), np.tile([1, 2], 100), said.ravel())
    >>> alpha = bootstrap(votes, krippendorff_alpha)
    >>> round(alpha.value, 2), [round(end, 1) for end in alpha.interval_95]
    (0.81, [0.7, 0.9])

    Of the columns that the first expert calls X2, the share that the second calls single vacancies:

    >>> def called_single(votes, weights):
    ...     counts = expert_confusion(votes, weights)[..., 0, 1, 2, :]
    ...     return counts[..., 3] / counts.sum(axis=-1)
    >>> share = bootstrap(votes, called_single)
    >>> float(share.value), [round(float(end), 1) for end in share.interval_95]
    (0.25, [0.1, 0.4])
    """
    _check_from_one("repeats", repeats)
    patterns, _, times = _patterns(_table(votes))
    row, place = np.nonzero(patterns >= 0)
    distinct = VoteTable(row, votes.experts[place], patterns[row, place])
    value = statistic(distinct, times)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(1, len(times)))
    draws = []
    for start in range(0, repeats, block):
        size = min(block, repeats - start)
        chosen = rng.multinomial(int(times.sum()), times / times.sum(), size) if len(times) else np.zeros((size, 0))
        draws.append(np.asarray(statistic(distinct, chosen.astype(np.float64))))
    found = np.concatenate(draws)
    undefined = np.isnan(found).all(axis=0)
    ends = np.nanquantile(np.where(undefined, 0.0, found), (0.025, 0.975), axis=0)
    low, high = np.where(undefined, np.nan, ends)
    return Estimate(value, (_plain(low), _plain(high)))


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return a copy as (n,) int64, or say what is wrong."""
    given = np.asarray(values)
    if given.ndim != 1:
        raise ValueError(f"{name}: expected shape (n,), got {given.shape}")
    if given.dtype.kind not in "iu" and len(given):
        raise TypeError(f"{name}: expected integers, got dtype {given.dtype}")
    return given.astype(np.int64)


def _numbers(votes: VoteTable, columns: ArrayLike) -> NDArray[np.int64]:
    """Return the numbers of the columns (N,), each once and all that are voted on among them."""
    numbers = _integers("columns", columns)
    distinct, times = np.unique(numbers, return_counts=True)
    if len(distinct) < len(numbers):
        raise ValueError(f"columns: expected each number once, got {distinct[times > 1][0]} more often")
    missing = np.setdiff1d(votes.columns, distinct, assume_unique=True)
    if len(missing):
        raise ValueError(f"columns: expected all columns that are voted on, got none with the number {missing[0]}")
    return numbers


def _check_above_half(name: str, value: float) -> None:
    """Raise unless two classes cannot both reach the value."""
    if not 0.5 < value <= 1.0:
        raise ValueError(f"{name}: expected a number above 0.5, at most 1, got {value}")


def _check_from_one(name: str, value: int) -> None:
    """Raise unless the value is at least 1."""
    if value < 1:
        raise ValueError(f"{name}: expected an integer from 1, got {value}")


def _settled(
    votes: NDArray[np.int64], weight: NDArray[np.float64], quorum: int, least: float
) -> tuple[NDArray[np.int8], NDArray[np.str_]]:
    """Return label and status (N,) of columns whose classes have a weight (N, 5)."""
    _check_from_one("quorum", quorum)
    agreed = (votes >= quorum) & (weight.max(axis=1) >= least)
    label = np.where(agreed, weight.argmax(axis=1), -1).astype(np.int8)
    return label, np.select([agreed, votes > 0], ["agreed", "disputed"], "unlabelled")


def _tally(votes: VoteTable, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the votes of each class on each column of these numbers, (N, 5)."""
    order = np.argsort(numbers)
    sure = votes.label != UNSURE
    row = order[np.searchsorted(numbers, votes.column[sure], sorter=order)]
    return np.bincount(row * _C + votes.label[sure], minlength=len(numbers) * _C).reshape(-1, _C)


def _shares(tally: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide numbers of votes (N, 5) by their sums; zeros without votes."""
    return np.asarray(tally / np.maximum(tally.sum(axis=1, keepdims=True), 1))


def _table(votes: VoteTable) -> NDArray[np.int8]:
    """Return what each expert says of each column voted on, (N, E); -1 without a vote."""
    table = np.full((len(votes.columns), len(votes.experts)), -1, np.int8)
    table[votes._places] = votes.label
    return table


def _sure(table: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the table without unsure votes."""
    return np.where(table == UNSURE, np.int8(-1), table)


def _patterns(table: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64]]:
    """Return the distinct rows (K, E) that hold a vote, which each column has (N,; -1 for none), and how often (K,)."""
    voted = (table >= 0).any(axis=1)
    which = np.full(len(table), -1)
    if not voted.any():
        return table[:0], which, np.zeros(0)
    distinct, inverse, times = np.unique(table[voted], axis=0, return_inverse=True, return_counts=True)
    which[voted] = inverse.reshape(-1)
    return distinct, which, times.astype(np.float64)


def _one_hot(table: NDArray[np.int8]) -> Any:
    """Return 1 where expert e says l, (N, 5 E) sparse with cell 5 e + l."""
    row, expert = np.nonzero(table >= 0)
    cell = expert * _C + table[row, expert]
    return csr_array((np.ones(len(row)), (row, cell)), shape=(len(table), table.shape[1] * _C))


def _counts(table: NDArray[np.int8]) -> NDArray[np.int64]:
    """Count the experts who say each class, (N, 5)."""
    return np.asarray((table[:, :, None] == np.arange(_C)).sum(axis=1))


def _normalised(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by the sums over the last axis, evenly where there is nothing."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full(counts.shape, 1.0 / _C), where=total > 0.0))


def _paired(votes: VoteTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return n_il (N, 5) and n_i (N,) of all columns voted on, zeros for those with a single vote."""
    tally = _tally(votes, votes.columns).astype(np.float64)
    tally[tally.sum(axis=1) < 2] = 0.0
    return tally, tally.sum(axis=1)


def _summed(terms: NDArray[np.float64], weights: NDArray[np.floating[Any]] | None) -> NDArray[np.float64]:
    """Add up the terms (N, S) of the columns, each as often as it counts: (..., S)."""
    return terms.sum(axis=0) if weights is None else np.asarray(weights @ terms)


def _one_less(seen: NDArray[np.float64], chance: NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Return 1 - seen / chance; NaN where chance leaves nothing to disagree on."""
    return _plain(1.0 - np.divide(seen, chance, out=np.full(np.shape(chance), np.nan), where=chance > 0.0))


def _plain(values: NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Return a float where there is but one value."""
    return float(values) if np.ndim(values) == 0 else values

"""What the base that ships with the package adds to a run: it stands beside the networks learned from nothing, as it is
and learned on, and held-out steps say what each counts."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calendar import Calendar
from models.calibration import WORSE, Judges, Mixture
from models.config import TrainConfig
from models.course import Course
from models.forecaster import AnyMember, Forecaster
from models.inference import base_folder
from models.presets import Facts
from models.publishing import load_base
from models.search import Material
from models.shipped import Shipped
from models.tables import reach, seasons_of, told
from models.universal import Answering
from models.warm import names_network

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = {"fast": 120, "balanced": 200, "thorough": 300}  # that what answers a step ahead is learned on for
BATCH, USUAL = 64, 24  # windows a step, of up to so many steps ahead: fewer of more
RATES = {"head": 1e-3, "recurrent": 3e-4, "all": 3e-4}
PATIENCE = 6
PLENTY = 60_000  # points, from which on networks from nothing learn most of it: the base is not learned on beside them
TIMES = 3.0  # what the networks count there at least, in times of the base
CLOSE = 1.3  # times the best loss, up to which networks or what was learned on count
FAR = 1.5  # the same of the base as it is: it knows nothing of the time that judges, the others may
CALIBRATING = 30  # windows that judge, from which on the base alone is given intervals from them
# What must be gained over the base as it is, over the number of windows that judge. They have stopped the learning and
# chosen among networks, so that what learned looks better there than it is: by a third and more where they are few.
UNSURE = 3.0
WORDLESS = 1.05  # times: what asks for less is not worth a word


@dataclass(frozen=True)
class Base:
    """The base for one run: `seasons` (main, longer) as it is told them, `name` is for people."""

    answering: Answering
    seasons: tuple[int, int]
    name: str

    def configs(self, asked: TrainConfig, config: TrainConfig, lengths: Ints) -> list[TrainConfig]:
        """The base as it is, and learned on: as `asked` for where it is alone, else only what answers a step ahead,
        where there are few points. `config` is the run's, complete; `lengths` (series,) in steps."""
        context = min(reach(*self.seasons), max(1, int(lengths.max())))
        plain: dict[str, Any] = {"context": context, "read": context, "segment": 1, "cell": "gru", "layers": 1}
        plain |= {"hidden": self.answering.network.hidden, "scaling": "std", "base": "mix", "head": "quantile"}
        plain |= {"calendar": False, "covariates": False, "members": 1, "pretrained": True}
        alone, depth = bool(asked.pretrained), asked.unfrozen if asked.pretrained else "head"
        batch = max(8, BATCH * USUAL // max(USUAL, config.horizon or 1))
        usual = {"steps": STEPS[config.preset], "batch": batch, "learning_rate": RATES[depth], "patience": PATIENCE}
        given = {name: getattr(asked, name) for name in usual if alone and getattr(asked, name) is not None}
        as_it_is = config.replace(**plain, steps=0)
        if lengths.sum() >= PLENTY and not alone:
            return [as_it_is]
        return [as_it_is, as_it_is.replace(**usual | given, unfrozen=depth)]

    @property
    def weights(self) -> str:
        """SHA-256 of its weights."""
        digest = hashlib.sha256()
        for value in self.answering.state_dict().values():
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()

    def reasons(self, asked: TrainConfig, known: Facts, reasons: Mapping[str, str]) -> dict[str, str]:
        """Those of `reasons` that hold of the base alone, and what it does not read of what is there."""
        kept = {name: reasons[name] for name in ("season", "horizon", "minimum") if name in reasons}
        if known.covariates or asked.covariates:
            kept["covariates"] = f"covariates False: {self.name} reads none; networks from nothing do."
        return kept

    def member(self, config: TrainConfig) -> Shipped:
        """The base, of which as much may be learned on as the config says."""
        member = Shipped(config, self.seasons, self.answering).train()
        member.freeze(config.unfrozen if config.steps else "nothing")
        return member


@dataclass(frozen=True)
class Based(Material):
    """The material of a run that has the base among its candidates."""

    base: Base | None = None

    def course(self, config: TrainConfig, learned: Ints, until: Ints, place: int = 0) -> Course:
        """As of any material, of the base where the config is the base's."""
        if self.parent is not None or self.base is None or not config.pretrained:
            return super().course(config, learned, until, place)
        return Course(self.base.member(config), self.panel, learned, until, self.device)


def base_for(config: TrainConfig, calendar: Calendar, start: Path | None, name: str) -> tuple[Base | None, str]:
    """The base that a run of `config` has among its candidates: that in the folder `start`, else the one that ships
    with the package unless the config asks for a network of its own. Beside it, why there is none though there should
    be. Raises ValueError where the run is of the base alone and it is not whole."""
    wanted = config.pretrained
    if start is None and (wanted is False or (wanted is None and names_network(config))):
        return None, ""
    try:
        answering = load_base(start or base_folder())
    except ValueError as error:
        if wanted:
            raise
        return None, f"pretrained False: the base cannot be read ({error})."
    season = config.season
    seasons = seasons_of(calendar.frequency)
    if season is not None and season != seasons[0]:
        seasons = told(season, max((one for one in calendar.frequency.seasons if one > season), default=0))
    return Base(answering, seasons, name), ""


def weigh(
    judges: Judges, members: Sequence[AnyMember[Any]], best_steps: Sequence[int], base: Base
) -> tuple[Mixture, list[str]]:
    """What each member counts (`shares_of`). Where the mixture is worse than the base alone on what judges, the base
    alone is left, with its own intervals. `best_steps` (member,) are those after which each was best. With the mixture
    come sentences on why."""
    quantiles = judges.asked(members)
    losses = judges.losses(quantiles)
    kinds = [_kind(member, steps) for member, steps in zip(members, best_steps, strict=True)]
    shares = shares_of(losses, kinds, judges.count, plenty=bool(judges.panel.lengths.sum() >= PLENTY))
    found = judges.calibrated(members, quantiles, shares)
    alone = kinds.index("base")
    reasons = [_told(losses, kinds, shares, base.name, judges.count)]
    plain = all(kind == "base" for kind, share in zip(kinds, shares, strict=True) if share > 0)
    if plain and judges.count < CALIBRATING:
        reasons.append(f"intervals: those of {base.name}, too few windows judge to make others.")
        found = judges.untouched(members, quantiles, np.eye(len(members))[alone])
    elif found.loss > losses[alone]:
        text = f"members: {base.name} as it is alone, the mean of these was worse on what judges ({found.loss:.4g})."
        reasons.append(text)
        found = judges.untouched(members, quantiles, np.eye(len(members))[alone])
    return found, reasons


def judged(members: Sequence[AnyMember[Any]], mixture: Mixture) -> dict[str, float]:
    """The loss on what judges, of the version and of the base as it is where that was a candidate: the same weights
    that others are learned on from."""
    found = {"version": mixture.loss}
    for member, loss in zip(members, mixture.losses, strict=True):
        if isinstance(member, Shipped) and not member.config.steps:
            found["base"] = float(loss)
            break
    return {name: loss for name, loss in found.items() if np.isfinite(loss)}


def assembled(config: TrainConfig, members: Sequence[AnyMember[Any]]) -> Forecaster:
    """The forecaster of a run's complete `config` with the `members` that count: its context is what they read, of the
    base all that it can use; what it says of a network is that of the first from nothing, or else the base's."""
    based = [member for member in members if isinstance(member, Shipped)]
    for member in based:
        member.config = member.config.replace(context=member.context, read=member.context)
    if not based:
        return Forecaster(config, members)
    if len(based) == len(members):
        return Forecaster(based[-1].config, members)
    segment = config.segment or 1
    wanted = max(config.context or 1, based[0].context)
    config = config.replace(context=-(-wanted // segment) * segment, pretrained=True)
    return Forecaster(config, members)


def _kind(member: AnyMember[Any], best_step: int) -> str:
    """Whether a member is the `base` as it is, the base learned on (`tuned`), the same where nothing learned was
    better (`idle`) or a `network` from nothing."""
    if not isinstance(member, Shipped):
        return "network"
    if not member.config.steps:
        return "base"
    return "tuned" if best_step else "idle"


def shares_of(losses: Array, kinds: Sequence[str], count: float, *, plenty: bool = False) -> Array:
    """The members' shares (member,) by their `losses` (member,) on `count` windows: the same for the networks together,
    the base and the base learned on, as far as they are good enough; where points are `plenty` the base counts as one
    more network does, at most a quarter. Equal shares forecast better than estimated ones do (Clemen 1989). The fewer
    windows judge, the better a network or learning on has to be."""
    kind, doubt = np.array(kinds), _doubt(count)
    own, best = losses[kind == "base"][0], losses[kind != "idle"].min()
    networks = kind == "network"
    networks &= losses <= WORSE * losses[networks].min(initial=np.inf)
    networks &= (losses <= CLOSE * best) & (losses * doubt <= CLOSE * own)
    tuned = (kind == "tuned") & (losses * doubt <= own)
    far = own > FAR * doubt * best
    plain = (kind == "base") & (not far or not (networks | tuned).any())
    shares = np.zeros(len(losses))
    together = max(TIMES, float(networks.sum())) if plenty else 1.0
    for group, part in ((networks, together), (tuned, 1.0), (plain, 1.0)):
        shares[group] = part / max(1, group.sum())
    return shares / shares.sum()


def _doubt(count: float) -> float:
    """How many times its loss what has learned counts with, where `count` windows judge."""
    return 1.0 + UNSURE / max(1.0, count)


def _told(losses: Array, kinds: Sequence[str], shares: Array, name: str, count: float) -> str:
    """A sentence on what each kind of candidate scored and how much of the forecast it is, and where the base stays
    though something scored better, on why."""
    words = {"base": f"{name} as it is", "tuned": "learned on", "network": "from nothing"}
    parts: list[str] = []
    left = False
    for kind, said in words.items():
        places = np.flatnonzero(np.array(kinds) == kind)
        if len(places):
            share, best = float(shares[places].sum()), losses[places].min()
            parts.append(f"{said} {best:.4g} ({share:.0%} of the forecast)")
            left |= share == 0 and best < losses[kinds.index("base")]
    if "idle" in kinds:
        parts.append("nothing learned on was better")
    if left and _doubt(count) > WORDLESS:
        parts.append(
            f"little judges ({count:.2g} windows), so what has learned counts with {_doubt(count):.2g} times its loss"
        )
    return f"pretrained {bool(shares[[kind != 'network' for kind in kinds]].any())}: {', '.join(parts)}."

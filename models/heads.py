"""What the network's numbers mean at each step ahead: one class a distribution, from raw numbers to quantiles and to a
loss. All in scaled units, around the base."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.metrics import normal_scores

LEAST_GAP = 1e-3  # between neighbouring levels of the first forecast, in scaled units
LEAST_SPREAD = 1e-4  # of a distribution, in scaled units: less is a forecast that claims to know
FIRST_FREEDOM = 5.0  # degrees of freedom a Student-t starts from
ORDER = 20  # of the polynomials for Student-t quantiles: right within 1e-5 at levels from 0.001 to 0.999
COUNTED = 64  # the negative binomial's counts below this are exact
RAMP = 0.01  # in probability: how steeply a quantile goes from one count to the next
NEAR_ZERO = 0.1  # the count that a location of 0 stands for


class Head(nn.Module):
    """`outputs` numbers a step; the first is always the offset of the median (the location) from the base."""

    outputs: int

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Quantiles (batch, horizon, level), never decreasing along levels, in scaled units, of `raw` (batch, horizon,
        outputs) and `base` (batch, horizon). `shift` and `scale` (batch, 1) lead to the data: scaled * scale +
        shift."""
        raise NotImplementedError

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """What each step's forecast costs against `target` (batch, horizon), as (batch, horizon), in scaled units and
        finite for any finite input."""
        raise NotImplementedError

    def begin(self, residuals: Tensor) -> Tensor:
        """The raw numbers (horizon, outputs) whose quantiles are `residuals` (horizon, level), never decreasing along
        levels, around the base: what an untrained network starts from."""
        raise NotImplementedError


class Quantile(Head):
    """Free quantiles, monotone by construction: the level nearest to the median as it is, the others by adding up
    softplus steps away from it. The loss is the pinball loss (Koenker and Bassett 1978), a mean over levels."""

    levels: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.outputs = len(levels)
        self.anchor = nearest_to_median(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return base[..., None] + monotone(raw, self.anchor)

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        error = (target - base)[..., None] - monotone(raw, self.anchor)
        # A constant slope on either side: the same value and gradient as a maximum, whose backward pass costs thrice.
        slope = self.levels - (error.detach() < 0).to(error.dtype)
        return (error * slope).mean(-1)

    def begin(self, residuals: Tensor) -> Tensor:
        free = unsoftplus(residuals.diff(dim=1).clamp_min(LEAST_GAP))
        return torch.cat([residuals[:, self.anchor : self.anchor + 1], free], dim=1)


class Gaussian(Head):
    """A normal distribution: location and spread. The loss is half its continuous ranked probability score in closed
    form (Gneiting and Raftery 2007, section 4.2), which is the pinball loss's mean over all levels. Against the
    likelihood it stays in the data's units, so that series weigh as with free quantiles, and one wild value or one
    spread near 0 cannot drown the rest: its gradient is bounded."""

    scores: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.outputs = 2
        self.anchor = nearest_to_median(levels)
        self.register_buffer("scores", torch.tensor(normal_scores(levels)).float(), persistent=False)

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        middle = base + raw[..., 0]
        return middle[..., None] + spread(raw[..., 1])[..., None] * self.scores.to(middle.dtype)

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        error, width = target - base - raw[..., 0], spread(raw[..., 1])
        # By the envelope theorem the score's derivative through this quotient is 0: left out, it cannot overflow.
        ratio = (error / width).detach().clamp(-40.0, 40.0)
        density = torch.exp(-0.5 * ratio**2) / math.sqrt(2.0 * math.pi)
        return 0.5 * (error * torch.erf(ratio / math.sqrt(2.0)) + width * (2.0 * density - 1.0 / math.sqrt(math.pi)))

    def begin(self, residuals: Tensor) -> Tensor:
        return first_spread(residuals, self.scores.to(residuals), self.anchor)


class StudentT(Head):
    """A Student-t distribution for tails heavier than the normal's: location, spread, and degrees of freedom above 2
    for each step. The loss is the negative log likelihood times the spread, which is not learned through (Seitzer et
    al. 2022, beta 1/2): so it is in scaled units, and its gradient as bounded as the pinball loss's.

    torch has no Student-t quantiles and ONNX no incomplete beta function, so each level's quantile is a Chebyshev
    polynomial in the inverse of the degrees of freedom, where it is smooth up to the normal distribution's."""

    fit: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.outputs = 3
        self.anchor = nearest_to_median(levels)
        self.register_buffer("fit", torch.tensor(student_fit(levels)).float(), persistent=False)

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        middle = base + raw[..., 0]
        place = 4.0 / freedom(raw[..., 2])[..., None].to(middle.dtype) - 1.0  # from -1, the normal, to 1, two degrees
        return middle[..., None] + spread(raw[..., 1])[..., None] * chebyshev(self.fit.to(middle.dtype), place)

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        width, degrees = spread(raw[..., 1]), freedom(raw[..., 2])
        ratio = (target - base - raw[..., 0]).clamp(-1e12, 1e12) / width
        half = 0.5 * (degrees + 1.0)
        constant = torch.lgamma(0.5 * degrees) - torch.lgamma(half) + 0.5 * torch.log(degrees * math.pi)
        return width.detach() * (constant + torch.log(width) + half * torch.log1p(ratio**2 / degrees))

    def begin(self, residuals: Tensor) -> Tensor:
        scores = chebyshev(self.fit, self.fit.new_full((1,), 4.0 / FIRST_FREEDOM - 1.0)).to(residuals)
        own = first_spread(residuals, scores, self.anchor)
        return torch.cat([own, torch.full_like(own[:, :1], unsoftplus(torch.tensor(FIRST_FREEDOM - 2.0)).item())], 1)


class NegativeBinomial(Head):
    """Counts: a mean, and a variance that is the mean (as a Poisson distribution has it) plus a spread squared. The
    loss is the negative log likelihood of the target rounded to a count, times the standard deviation, which is not
    learned through: in scaled units, as for the Student-t.

    Quantiles are exact for counts below `COUNTED`, from the cumulated probabilities. Above, the gamma distribution of
    the same mean and variance is taken, by Wilson and Hilferty's cube (1931). Where a level is within half `RAMP` of
    the jump from one count to the next it lies between the two: a graph with jumps could differ from torch by a whole
    count for one rounding."""

    scores: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.outputs = 2
        self.levels = levels
        self.anchor = nearest_to_median(levels)
        self.register_buffer("scores", torch.tensor(normal_scores(levels)).float(), persistent=False)

    def _counts(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation and size (the gamma's shape), in counts, (batch, horizon)."""
        unit = torch.where(scale > 0, scale, 1.0)
        place = ((base + raw[..., 0]) * unit + shift).clamp(-1e12, 1e12)
        mean = (0.5 * (place + torch.sqrt(place**2 + 4.0 * NEAR_ZERO**2))).clamp_min(1e-6)
        extra = (spread(raw[..., 1]).to(mean.dtype) * unit).clamp(1e-6, 1e12)
        return mean, torch.sqrt(mean + extra**2), (mean / extra).square().clamp(1e-6, 1e8)

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        mean, deviation, size = (part[..., None] for part in self._counts(raw, base, shift, scale))
        count = torch.arange(1, COUNTED, dtype=mean.dtype, device=mean.device)
        nothing = -size * torch.log1p(mean / size)  # the logarithm of the probability of 0
        growth = torch.log((count - 1.0 + size) / (mean + size) * (mean / count)).cumsum(-1)
        below = torch.exp(torch.cat([nothing, nothing + growth], dim=-1)).cumsum(-1)  # (batch, horizon, COUNTED)
        shape = (mean / deviation).square()
        found: list[Tensor] = []
        for level, score in zip(self.levels, normal_scores(self.levels), strict=True):
            passed = ((level - below) / RAMP + 0.5).clamp(0.0, 1.0)
            cube = (1.0 - 1.0 / (9.0 * shape) + float(score) / (3.0 * shape.sqrt())).clamp_min(0.0)
            beyond = (mean * cube**3 - COUNTED).clamp_min(0.0)
            found.append(passed.sum(-1, keepdim=True) + beyond * passed[..., -1:])
        return (torch.cat(found, dim=-1) - shift[..., None]) / torch.where(scale > 0, scale, 1.0)[..., None]

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        # Differences of large logarithms: float64 where there is any.
        wide = torch.float32 if raw.device.type == "mps" else torch.float64
        raw, base, target, shift, scale = (part.to(wide) for part in (raw, base, target, shift, scale))
        unit = torch.where(scale > 0, scale, 1.0)
        truth = (target * unit + shift).round().clamp(0.0, 1e12)
        mean, deviation, size = self._counts(raw, base, shift, scale)
        ways = torch.lgamma(size) + torch.lgamma(truth + 1.0) - torch.lgamma(truth + size)
        loss = ways + size * torch.log1p(mean / size) + truth * torch.log1p(size / mean)
        return ((deviation / unit).detach() * loss).clamp(max=1e30).float()

    def begin(self, residuals: Tensor) -> Tensor:
        return first_spread(residuals, self.scores.to(residuals), self.anchor)


def spread(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + LEAST_SPREAD


def freedom(raw: Tensor) -> Tensor:
    """Degrees of freedom above 2, below which there is no variance; held where logarithms of the gamma function still
    tell one from the next."""
    return 2.0 + functional.softplus(raw).clamp(max=1e4)


def unsoftplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


def first_spread(residuals: Tensor, scores: Tensor, anchor: int) -> Tensor:
    """Location and raw spread (horizon, 2) of the distribution with quantiles at `scores` (level,) that lies closest
    to `residuals` (horizon, level) and meets them at the anchor; a spread of 1 where one level says nothing of it."""
    over = scores - scores[anchor]
    size = over.square().sum()
    middle = residuals[:, anchor : anchor + 1]
    width = ((residuals - middle) * over).sum(1, keepdim=True) / size if size > 0 else torch.ones_like(middle)
    width = width.clamp_min(LEAST_GAP)
    return torch.cat([middle - width * scores[anchor], unsoftplus(width - LEAST_SPREAD)], dim=1)


def chebyshev(fit: Tensor, place: Tensor) -> Tensor:
    """The polynomials with coefficients `fit` (order, level) at `place` (…, 1) from -1 to 1: (…, level), by Clenshaw's
    recurrence."""
    newer, older = torch.zeros_like(place * fit[0]), torch.zeros_like(place * fit[0])
    for row in fit[1:].flip(0):
        newer, older = row + 2.0 * place * newer - older, newer
    return fit[0] + place * newer - older


@lru_cache(maxsize=64)
def student_fit(levels: tuple[float, ...]) -> NDArray[np.float64]:
    """Coefficients (ORDER, level) of Chebyshev polynomials for the quantiles of Student's t at 4 / degrees - 1."""
    nodes = np.cos(math.pi * (np.arange(ORDER) + 0.5) / ORDER)
    values = student_quantiles(4.0 / (nodes + 1.0), np.array(levels))
    waves = np.cos(math.pi * np.outer(np.arange(ORDER), np.arange(ORDER) + 0.5) / ORDER)
    fit = 2.0 / ORDER * waves @ values
    fit[0] *= 0.5
    return fit


def student_quantiles(degrees: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles (degree, level) of Student's t: Newton's steps on its distribution function, an integral of powers of
    the cosine (x = sqrt(degrees) tan(angle)) by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    free = degrees[:, None]
    constant = [math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) / math.sqrt(math.pi) for d in degrees]
    constant = np.array(constant)[:, None]
    wanted = np.abs(levels - 0.5)
    angle = np.zeros((len(degrees), len(levels)))
    for _ in range(100):
        power = np.cos(angle[..., None] * (nodes + 1.0) / 2.0) ** (free[..., None] - 1.0)
        missing = wanted - constant * angle / 2.0 * (power @ weights)
        density = constant * np.cos(angle) ** (free - 1.0)
        # The density falls with the angle, so that a step from below never passes the root.
        angle = angle + missing / density
        if np.abs(missing).max() < 1e-14:
            break
    return np.sign(levels - 0.5) * np.sqrt(free) * np.tan(angle)


def monotone(raw: Tensor, anchor: int) -> Tensor:
    """Quantiles (…, level) from free numbers (…, level): the first is the anchor's, the others are the steps between
    neighbouring levels, from the lowest to the highest, before softplus. Laid out level by level, as the network's raw
    numbers are: half the time of sums along the last axis. A graph, whose steps each cost more than the numbers in
    them, adds up all at once."""
    if torch.onnx.is_in_onnx_export():
        middle, steps = raw[..., :1], functional.softplus(raw[..., 1:])
        above = middle + steps[..., anchor:].cumsum(-1)
        if not anchor:
            return torch.cat([middle, above], dim=-1)
        below = middle - steps[..., :anchor].flip(-1).cumsum(-1).flip(-1)
        return torch.cat([below, middle, above], dim=-1)
    middle, *steps = raw[..., 0], *functional.softplus(raw[..., 1:]).unbind(-1)
    found = [middle]
    for step in reversed(steps[:anchor]):
        found.insert(0, found[0] - step)
    for step in steps[anchor:]:
        found.append(found[-1] + step)
    return torch.stack(found, dim=-2).transpose(-1, -2)


def nearest_to_median(levels: tuple[float, ...]) -> int:
    """The place of the level that a forecast's location is read from."""
    return min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))


HEADS: dict[str, Callable[[tuple[float, ...]], Head]] = {
    "quantile": Quantile,
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}


def make_head(kind: str, levels: tuple[float, ...]) -> Head:
    """The head a config names: `kind` is a key of HEADS, `levels` the trained ones, ascending."""
    return HEADS[kind](levels)

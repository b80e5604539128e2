"""What the network's numbers mean: quantiles and losses of each distribution, against numbers worked by hand."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from models.heads import COUNTED, HEADS, RAMP, Head, StudentT, make_head, monotone, student_quantiles

NINE = tuple(round(0.1 * n, 1) for n in range(1, 10))
KINDS = sorted(HEADS)
ONE = torch.ones(1, 1, dtype=torch.float64)


def softplus_of(value: float) -> float:
    """The raw number whose softplus is `value`."""
    return math.log(math.expm1(value))


def ask(head: Head, raw: list[float], base: float = 0.0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """The quantiles (level,) of one step."""
    there = torch.full((1, 1), base, dtype=torch.float64)
    return head.quantiles(torch.tensor([[raw]]), there, shift * ONE, scale * ONE)[0, 0].numpy()


def cost(head: Head, raw: Tensor, target: Tensor, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """The loss (1, step) of `raw` (1, step, outputs) around a base of 0."""
    return head.loss(raw, torch.zeros_like(target), target, shift * ONE.float(), scale * ONE.float())


@pytest.mark.parametrize("anchor", [0, 1, 4])
def test_free_quantiles_never_cross(anchor: int) -> None:
    assert (monotone(torch.randn(100, 3, 5) * 50, anchor).diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_of_every_head_never_cross(kind: str) -> None:
    torch.manual_seed(0)
    head = make_head(kind, (0.01, 0.1, 0.5, 0.9, 0.99))
    raw, base = torch.randn(50, 4, head.outputs) * 5, torch.randn(50, 4, dtype=torch.float64) * 5
    scale = torch.rand(50, 1, dtype=torch.float64) * 20
    found = head.quantiles(raw, base, torch.rand(50, 1, dtype=torch.float64) * 50, scale)
    assert found.shape == (50, 4, 5)
    assert found.dtype == torch.float64
    assert (found.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("levels", [(0.5,), (0.1, 0.5, 0.9), (0.05, 0.95), (0.7, 0.8, 0.9)])
def test_free_quantiles_begin_where_they_are_told(levels: tuple[float, ...]) -> None:
    head = make_head("quantile", levels)
    given = torch.sort(torch.randn(5, len(levels)), dim=1).values + torch.arange(len(levels)) * 0.1
    found = head.quantiles(head.begin(given)[None], torch.zeros(1, 5), torch.zeros(1, 1), torch.ones(1, 1))
    torch.testing.assert_close(found[0], given, atol=1e-5, rtol=1e-4)


def test_a_distribution_begins_where_residuals_of_its_kind_lay() -> None:
    normal = torch.tensor([[NormalDist(0.3, 2.0).inv_cdf(level) for level in NINE]])
    student = torch.tensor(0.3 + 2.0 * student_quantiles(np.array([5.0]), np.array(NINE))).float()
    for kind, given in (("gaussian", normal), ("student_t", student)):
        head = make_head(kind, NINE)
        found = head.quantiles(head.begin(given)[None], torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1))
        torch.testing.assert_close(found[0], given, atol=1e-5, rtol=1e-5)


def test_one_level_says_nothing_of_the_spread() -> None:
    for kind in KINDS:
        assert make_head(kind, (0.5,)).begin(torch.zeros(3, 1)).isfinite().all()


def test_the_gaussian_loss_is_the_pinball_loss_of_all_levels() -> None:
    levels = torch.tensor((np.arange(4000) + 0.5) / 4000)
    law, target = NormalDist(1.0, 0.7), torch.tensor([[-1.0, 0.9, 1.0, 4.0]])
    knots = torch.tensor([law.inv_cdf(level) for level in levels.tolist()])
    error = target[..., None] - knots
    expected = torch.maximum(levels * error, (levels - 1) * error).mean(-1).float()
    raw = torch.tensor([1.0, softplus_of(0.7 - 1e-4)]).expand(1, 4, 2)
    torch.testing.assert_close(cost(make_head("gaussian", NINE), raw, target), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(3.0, 3.182446), (5.0, 2.570582), (10.0, 2.228139), (30.0, 2.042272), (1e4, 1.960201)]
)
def test_student_quantiles_are_those_of_the_tables(degrees: float, expected: float) -> None:
    head = make_head("student_t", (0.025, 0.5, 0.975))
    found = ask(head, [0.5, softplus_of(1.0 - 1e-4), softplus_of(degrees - 2.0) if degrees < 500 else degrees - 2.0])
    np.testing.assert_allclose(found, [0.5 - expected, 0.5, 0.5 + expected], atol=2e-5)


def test_student_quantiles_are_right_at_every_level_and_freedom() -> None:
    levels = np.array([0.001, 0.01, 0.1, 0.3, 0.45, 0.5, 0.8, 0.99, 0.999])
    closed = (2 * levels - 1) / np.sqrt(2 * levels * (1 - levels))  # two degrees of freedom
    np.testing.assert_allclose(student_quantiles(np.array([2.0]), levels)[0], closed, atol=1e-9)
    degrees = np.concatenate([np.linspace(2.001, 12, 40), np.geomspace(12, 9000, 20)])
    free = torch.tensor(np.where(degrees < 50, np.log(np.expm1(np.minimum(degrees, 50) - 2.0)), degrees - 2.0)).float()
    raw = torch.stack([torch.zeros(60), torch.full((60,), softplus_of(1.0 - 1e-4)), free], dim=1)[None]
    head = StudentT(tuple(levels))
    found = head.quantiles(raw, torch.zeros(1, 60, dtype=torch.float64), ONE, ONE)[0].numpy()
    np.testing.assert_allclose(found, student_quantiles(degrees, levels), atol=1e-4)


def test_the_student_loss_is_its_likelihood_in_units_of_its_spread() -> None:
    raw = torch.tensor([0.0, softplus_of(2.0 - 1e-4), softplus_of(1.0)]).expand(1, 3, 3)  # spread 2, three degrees
    target = torch.tensor([0.0, 2.0, -6.0])
    density = 6 * math.sqrt(3) / (math.pi * (3 + (target / 2) ** 2) ** 2) / 2
    torch.testing.assert_close(
        cost(make_head("student_t", NINE), raw, target[None])[0], -2 * density.log(), atol=1e-4, rtol=1e-4
    )


def law_of(mean: float, extra: float) -> np.ndarray:
    """Probabilities of the counts 0 to 1999 of a negative binomial of variance mean + extra²."""
    size = mean**2 / extra**2
    counts = np.arange(2000)
    logs = [math.lgamma(k + size) - math.lgamma(size) - math.lgamma(k + 1) for k in counts]
    return np.exp(np.array(logs) + size * np.log(size / (size + mean)) + counts * np.log(mean / (size + mean)))


@pytest.mark.parametrize(("mean", "extra"), [(0.4, 0.5), (3.0, 0.1), (6.0, 12.0), (40.0, 5.0)])
def test_small_counts_are_exact(mean: float, extra: float) -> None:
    place = mean - 0.01 / mean  # of which the positive root stands for the mean
    raw = [(place - 2.0) / 4.0 - 0.5, softplus_of(extra / 4.0 - 1e-4)]
    found = ask(make_head("negative_binomial", NINE), raw, base=0.5, shift=2.0, scale=4.0) * 4.0 + 2.0
    below = np.cumsum(law_of(mean, extra))
    sure = np.abs(below[:, None] - np.array(NINE)).min(axis=0) > RAMP / 2
    expected = np.searchsorted(below, NINE)
    exact = sure & (expected < COUNTED)
    assert exact.sum() >= 6
    np.testing.assert_allclose(found[exact], expected[exact], atol=1e-5)
    assert (np.abs(found - expected)[expected < COUNTED] <= 1).all()


@pytest.mark.parametrize(("mean", "extra"), [(70.0, 70.0), (300.0, 30.0), (150.0, 200.0), (600.0, 100.0)])
def test_large_counts_are_close(mean: float, extra: float) -> None:
    levels = (0.05, 0.3, 0.5, 0.9, 0.99)
    found = ask(make_head("negative_binomial", levels), [mean, extra])
    expected = np.searchsorted(np.cumsum(law_of(mean, extra)), levels)
    assert np.abs(found - expected).max() <= 0.045 * math.sqrt(mean + extra**2)


def test_the_quantile_of_a_count_has_no_jump() -> None:
    head = make_head("negative_binomial", (0.5, 0.9))
    place = torch.linspace(-3, 120, 20_001, dtype=torch.float64)[None]
    raw = torch.zeros(1, 20_001, 2)
    found = head.quantiles(raw, place, 0 * ONE, ONE)[0]
    assert found.diff(dim=0).max() < 0.5  # a step of 0.006 in the mean
    assert (found.diff(dim=0) >= 0).all()


def test_the_probabilities_behind_the_count_loss_add_up_to_one() -> None:
    head = make_head("negative_binomial", NINE)
    counts = torch.arange(400.0)[None]
    raw = torch.tensor([3.0, 2.0]).expand(1, 400, 2)
    deviation = math.sqrt(3.0033 + (math.log1p(math.exp(2.0)) + 1e-4) ** 2)
    assert float(torch.exp(-cost(head, raw, counts) / deviation).sum()) == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(cost(head, raw[:, :2], torch.tensor([[-5.0, 1.3]])), cost(head, raw[:, :2], counts[:, :2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 1e-8, 1.0, 1e4, 1e30])
def test_loss_and_gradient_are_finite_for_any_finite_input(kind: str, size: float) -> None:
    torch.manual_seed(0)
    head = make_head(kind, NINE)
    for scale in (0.0, 1e-6, 1.0, 1e6):
        raw = (torch.randn(4, 7, head.outputs) * size).requires_grad_()
        base, target = torch.randn(4, 7) * size, torch.randn(4, 7) * size
        loss = head.loss(raw, base, target, torch.randn(4, 1) * scale, torch.full((4, 1), scale))
        assert loss.shape == (4, 7)
        loss.mean().backward()
        assert raw.grad is not None
        assert loss.isfinite().all()
        assert raw.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_leads_to_the_distribution_of_the_data(kind: str) -> None:
    random = np.random.default_rng(0)
    counts = kind == "negative_binomial"
    draws = random.negative_binomial(2.0, 0.2, 2000) if counts else 3.0 + 2.0 * random.standard_t(4, 2000)
    shift, scale = (0.0, 5.0) if counts else (0.0, 1.0)
    target = torch.tensor(draws / scale).float()[None]
    head = make_head(kind, NINE)
    raw = torch.zeros(head.outputs, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(250):
        optimiser.zero_grad()
        cost(head, raw.expand(1, 2000, -1), target, shift, scale).mean().backward()
        optimiser.step()
    found = ask(head, raw.tolist(), shift=shift, scale=scale)
    room = 0.25 if kind != "gaussian" else 0.6  # the normal distribution is not the one that was drawn from
    np.testing.assert_allclose(found, np.quantile(draws / scale, NINE), atol=room)

"""Scaling, bases and the whole forecaster as torch sees them."""

import numpy as np
import pytest
import torch

from models import TrainConfig
from models.bases import Base, faded_mean, newest
from models.forecaster import Forecaster, Inputs, Member, mirrored
from models.scaling import scale_window

FULL = TrainConfig(
    cell="gru", layers=1, hidden=8, horizon=5, context=12, segment=4, season=4, scaling="std", base="mix",
    steps=1, batch=1, learning_rate=1e-3, patience=1, aligned=0.0,
)  # fmt: skip


SEASON_AND_LAST = (Base("newest", 4), Base("newest", 1))


def forecaster_of(config: TrainConfig) -> Forecaster:
    return Forecaster(config, [Member(config, SEASON_AND_LAST)])


def window(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    row = torch.tensor([values], dtype=torch.float64)
    return row.nan_to_num(0.0), (~row.isnan()).double()


def test_scalings_worked_by_hand() -> None:
    context, mask = window(2.0, float("nan"), 4.0, 9.0)
    spread = np.sqrt(((2 - 5) ** 2 + (4 - 5) ** 2 + (9 - 5) ** 2) / 3)
    for scaling, expected in {"std": (5.0, spread), "last": (9.0, spread), "mean": (0.0, 5.0)}.items():
        shift, scale, *_ = scale_window(context, mask, scaling)
        assert (shift.item(), scale.item()) == pytest.approx(expected)


@pytest.mark.parametrize("scaling", ["std", "last", "mean"])
def test_scaling_survives_the_extremes(scaling: str) -> None:
    for size in (1e-300, 1e-12, 1.0, 1e200):
        context, mask = window(*(size * v for v in (1.0, 2.0, 4.0)))
        shift, scale, *_ = scale_window(context, mask, scaling)
        one_shift, one_scale, *_ = scale_window(*window(1.0, 2.0, 4.0), scaling)
        assert shift.item() == pytest.approx(size * one_shift.item(), rel=1e-9)
        assert scale.item() == pytest.approx(size * one_scale.item(), rel=1e-9)


def test_a_small_change_of_a_huge_value_keeps_its_digits() -> None:
    shift, scale, *_ = scale_window(*window(1e12 + 1, 1e12 + 3), "std")
    assert (shift.item() - 1e12, scale.item()) == pytest.approx((2.0, 1.0))


def test_windows_without_spread_have_scale_zero_and_one_value_its_size() -> None:
    assert scale_window(*window(0.1, 0.1, 0.1), "std")[1].item() == 0.0
    assert scale_window(*window(0.0, 0.0), "mean")[1].item() == 0.0
    assert scale_window(*window(float("nan"), -3.0), "last")[1].item() == 3.0
    assert scale_window(*window(float("nan"), float("nan")), "std")[0].item() == 0.0


def test_the_newest_value_of_each_place_skips_missing_ones() -> None:
    nan = float("nan")
    values, known = newest(*window(8.0, 1.0, 2.0, nan, nan, 5.0, nan), 3)  # the front 8.0 is no whole cycle
    assert values.tolist() == [[1.0, 5.0, 0.0]]
    assert known.tolist() == [[True, True, False]]


def test_the_mean_of_each_place_fades_into_the_past() -> None:
    nan = float("nan")
    values, known = faded_mean(*window(8.0, 1.0, 2.0, nan, 4.0, nan, nan), 3)
    assert values.tolist() == [[pytest.approx((0.6 * 1.0 + 4.0) / 1.6), 2.0, 0.0]]
    assert known.tolist() == [[True, True, False]]


def test_an_untrained_forecaster_is_the_mix_of_its_bases() -> None:
    forecaster = forecaster_of(FULL)
    network = forecaster.members[0].network
    for part in (network.head.weight, network.head.bias):
        part.data.zero_()
    context, mask = window(*range(8), 1.0, 2.0, 3.0, 6.0)
    middle = forecaster(context, mask)[0, :, 4]
    bases = np.array([[1, 2, 3, 6, 1], [6, 6, 6, 6, 6]]).mean(axis=0)
    np.testing.assert_allclose(middle.detach(), bases, rtol=1e-6)


def test_a_missing_season_falls_back_to_the_newest_value() -> None:
    member = Member(FULL, (Base("newest", 4),))
    nan = float("nan")
    ready, _ = member.prepare(Inputs(*window(*[nan] * 9, 2.0, 3.0, 7.0)))
    bases = ready.bases[0, :, 0] * ready.scale[0] + ready.shift[0]
    np.testing.assert_allclose(bases, [7, 2, 3, 7, 7])


@pytest.mark.parametrize("scaling", ["std", "last"])
def test_forecasts_move_with_the_units(scaling: str) -> None:
    torch.manual_seed(0)
    forecaster = forecaster_of(FULL.replace(scaling=scaling)).eval()
    context = torch.randn(6, 12, dtype=torch.float64)
    mask = torch.ones_like(context)
    with torch.no_grad():
        plain, moved = forecaster(context, mask), forecaster(1000 * context - 5e6, mask)
    torch.testing.assert_close(moved, 1000 * plain - 5e6, rtol=0, atol=0.01)


def test_bounds_hold_the_answer() -> None:
    torch.manual_seed(0)
    context = torch.randn(6, 12, dtype=torch.float64)
    found = forecaster_of(FULL.replace(minimum=-0.1, maximum=0.1))(context, torch.ones_like(context))
    assert found.min().item() == -0.1
    assert found.max().item() == 0.1


def test_masked_values_do_not_matter() -> None:
    torch.manual_seed(0)
    forecaster = forecaster_of(FULL).eval()
    gapped = torch.randn(6, 12, dtype=torch.float64)
    mask = (torch.rand(6, 12) < 0.6).double()
    with torch.no_grad():
        alone = [forecaster(row[None] * m[None], m[None]) for row, m in zip(gapped, mask, strict=True)]
        together = forecaster(gapped * mask, mask)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_an_open_config_makes_no_network() -> None:
    with pytest.raises(ValueError, match="expected a value for hidden"):
        forecaster_of(FULL.replace(hidden=None))


def test_only_levels_around_a_median_are_evened() -> None:
    assert mirrored((0.1, 0.5, 0.9))
    assert not mirrored((0.1, 0.9))  # there is no centre to even distances from
    assert not mirrored((0.05, 0.5, 0.8))

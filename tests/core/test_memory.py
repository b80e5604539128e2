"""What a run holds at once: the tensors of one pool, the windows of one part, and no pages that nothing uses."""

import ctypes
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import Calendar, Run, Series, memory
from models.backtesting import backtest
from models.config import BacktestPlan
from models.course import Batch, Course, gathered
from models.inference import OpenArtifact
from models.learning import learn

from .conftest import TINY, waves
from .test_training import course_of


def test_windows_are_prepared_in_parts_and_are_the_same(months: Calendar, monkeypatch: pytest.MonkeyPatch) -> None:
    course = course_of(waves(5, 60), months, 48, 54)
    whole = course.pool(3)
    member, sizes = course.member, list[int]()
    prepare = member.prepare

    def counted(inputs):
        sizes.append(len(inputs.context))
        return prepare(inputs)

    monkeypatch.setattr(member, "prepare", counted)
    monkeypatch.setattr(course, "together", 100)
    for one, other in zip(whole.tensors(), course.pool(3).tensors(), strict=True):
        torch.testing.assert_close(one, other)
    assert sum(sizes) == course.pooled
    assert max(sizes) == 100


def test_gathered_parts_are_gone_once_they_are_copied(months: Calendar) -> None:
    course = course_of(waves(5, 60), months, 48, 54)
    made: list[weakref.ref[torch.Tensor]] = []

    def parts():
        for at in range(4):
            assert sum(one() is not None for one in made) <= 1
            part = course.batch(np.array([at, at]), np.array([30, 31 + at]), course.limits)
            made.append(weakref.ref(part.target))
            yield part
            del part

    found = gathered(parts(), 8)
    assert len(found.target) == 8
    alone = course.batch(np.array([2, 2]), np.array([30, 33]), course.limits)
    for one, other in zip(found.rows(slice(4, 6)).tensors(), alone.tensors(), strict=True):
        assert torch.equal(one, other)


class Watched(Course):
    """A course that says whether the pool before was still held when the next one was made."""

    held: list[bool]
    last: "weakref.ref[torch.Tensor] | None" = None

    def pool(self, seed: int) -> Batch:
        self.held.append(self.last is not None and self.last() is not None)
        found = super().pool(seed)
        self.last = weakref.ref(found.target)
        return found


def test_one_pool_is_held_at_a_time(months: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = course_of(waves(3, 60), months, 48, 54, TINY.replace(steps=40))
    course = Watched(plain.member, plain.panel, plain.limits, plain.until, plain.device)
    course.held, course.pooled = [], 64
    learn(course, Run(tmp_path), "data")
    assert len(course.held) > 2
    assert not any(course.held)


def test_a_backtest_asks_for_no_more_windows_at_once_than_it_may(opened: OpenArtifact, history: list[Series]) -> None:
    sizes: list[int] = []

    class Counting:
        def run(self, names, inputs):
            sizes.append(len(inputs["context"]))
            return opened.session.run(names, inputs)

    plan = BacktestPlan(origins=3, horizon=8, step=5)
    found = backtest(replace(opened, session=Counting()), history, plan, together=5)
    assert max(sizes) == 5
    usual = {(row["forecaster"], row["metric"]): row["value"] for row in backtest(opened, history, plan).scores}
    assert {(row["forecaster"], row["metric"]): row["value"] for row in found.scores} == pytest.approx(usual, rel=1e-5)


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_goes_back() -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    memory.give_back()
    blocks = [bytearray(b"x" * 100_000) for _ in range(800)]  # below what glibc maps apart
    pin = bytearray(b"x" * 100_000)
    blocks.clear()
    before = resident()
    memory.give_back()
    assert before - resident() > 40
    assert pin


def test_where_the_heap_cannot_be_trimmed_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.give_back()

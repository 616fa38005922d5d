"""The speed of a rack's threads against one chip alone: that both are measured. How fast they are is the machine's."""

from dataclasses import replace

import pytest
from programs import small_program
from small_racks import shared

from arch.rack import mesh
from base.errors import TspError
from run import rack_speed


def test_both_run_and_are_compared(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(rack_speed, "rack_of", lambda name: shared().rack)
    monkeypatch.setattr(rack_speed, "open_any", lambda model, rack: shared())
    monkeypatch.setattr(rack_speed, "open_program", lambda model, config: asked.append(config) or small_program())
    monkeypatch.setattr(rack_speed, "BLOCKS", 2)
    monkeypatch.setattr(rack_speed, "TOKENS", 3)
    found = rack_speed.rack_speed(rack="twins", threads=2)
    assert asked == ["tiny"] and found.threads == 2
    assert found.gain == found.together / found.alone > 0


def test_chips_that_differ_are_not_compared_with_one(monkeypatch: pytest.MonkeyPatch):
    small, pair = mesh("small", "small", 2), mesh("two", "micro", 2)
    monkeypatch.setattr(rack_speed, "rack_of", lambda name: replace(pair, chips=(pair.chips[0], small.chips[0])))
    with pytest.raises(TspError, match="rack two must have chips that are all alike"):
        rack_speed.rack_speed(rack="two")

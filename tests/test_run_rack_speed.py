"""The speed of a rack's threads against one chip alone: that both are measured. How fast they are is the machine's."""

import pytest
from programs import small_program
from small_racks import shared

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

"""`tsp bench`: exact figures reach their goals, and all are printed. Nothing is timed here."""

import json

import pytest

from cli import bench
from cli.main import app
from run.bench import SHAPES, Figure, Shape, as_json, machine, of_shape

GOALS = {"15M": 0.96, "SmolLM2-135M": 0.93}


@pytest.mark.parametrize("shape", [
    SHAPES[0], *(pytest.param(shape, marks=pytest.mark.nightly) for shape in SHAPES[1:])], ids=lambda shape: shape.name)
def test_large_shapes_reach_their_goals(shape: Shape):
    assert GOALS[shape.name] <= of_shape(shape).value < 1


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    found = [Figure("a", "cycles", 4321.0, "cycles"), Figure("a", "compile", 2.5, "s")]
    monkeypatch.setattr(bench, "figures", lambda paths, say: found)
    return found


def test_tables_hold_every_figure_the_machine_and_what_is_published(found, capsys: pytest.CaptureFixture[str]):
    assert app(["bench"]) == 0
    out = capsys.readouterr().out
    for word in ("4,321", "2.500", "Raspberry Pi 4", machine()["processor"], machine()["commit"]):
        assert word in out


def test_json_holds_the_same(found, capsys: pytest.CaptureFixture[str]):
    assert app(["bench", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["figures"] == as_json({}, found)["figures"] and data["machine"]["cores"] == machine()["cores"]


def test_a_rack_has_figures_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked = []

    def figures(paths: list, rack: str, say) -> list[Figure]:
        asked.extend([rack, *(path.stem for path in paths)])
        return [Figure("a", "cycles", 4321.0, "cycles")]

    monkeypatch.setattr(bench, "rack_figures", figures)
    assert app(["bench", "--rack", "pair"]) == 0 and "4,321" in capsys.readouterr().out
    assert asked == ["pair", "stories263k"]
    assert app(["bench", "--rack", "none"]) == 2

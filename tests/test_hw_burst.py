"""The burst engine in Amaranth's own simulator: which cycles it works in, for any count and interval."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from arch.isa import ENGINE, Instr, Op, encode
from hw.burst import Burst


def run(op: Op, dispatches: dict[int, Instr], cycles: int = 60, fold: int = 1) -> list[dict[str, int]]:
    """The engine's outputs in every cycle."""
    dut: Any = Burst(op, fold)
    seen = []

    async def bench(ctx):
        for cycle in range(cycles):
            instr = dispatches.get(cycle)
            ctx.set(dut.start, instr is not None)
            if instr:
                ctx.set(dut.word.as_value(), encode(instr))
            await ctx.delay(1e-7)
            seen.append({name: int(ctx.get(getattr(dut, name)))
                         for name in ("active", "last", "busy", "conflict", "index", "part")}
                        | {"op": int(ctx.get(dut.op.as_value()))})
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def read(count: int, interval: int) -> Instr:
    return Instr(Op.READ, fields={"count": count, "interval": interval})


@pytest.mark.parametrize("interval", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_elements_execute_on_time(count: int, interval: int):
    instr = read(count, interval)
    seen = run(Op.READ, {3: instr})
    expected = [3 + ENGINE + i * interval for i in range(count)]
    assert [t for t, out in enumerate(seen) if out["active"]] == expected
    assert [seen[t]["index"] for t in expected] == list(range(count))
    assert [t for t, out in enumerate(seen) if out["last"]] == expected[-1:]
    assert [t for t, out in enumerate(seen) if out["busy"]] == list(range(3 + ENGINE, expected[-1] + 1))
    assert all(out["op"] == encode(instr) for out in seen[3 + ENGINE :])


def test_restart_in_the_cycle_of_the_last_element():
    seen = run(Op.READ, {0: read(3, 2), 5: read(2, 1)})
    active = [(t, out["index"]) for t, out in enumerate(seen) if out["active"]]
    assert active == [(1, 0), (3, 1), (5, 2), (6, 0), (7, 1)]
    assert not any(out["conflict"] for out in seen)


def test_earlier_restart_conflicts():
    seen = run(Op.READ, {0: read(3, 2), 4: read(1, 1)})
    assert [t for t, out in enumerate(seen) if out["conflict"]] == [4]


@pytest.mark.parametrize(("count", "interval"), [(1, 1), (1, 4), (3, 4), (3, 6)])
def test_an_element_in_parts(count: int, interval: int):
    seen = run(Op.READ, {3: read(count, interval)}, fold=4)
    expected = [(3 + ENGINE + i * interval + part, i, part) for i in range(count) for part in range(4)]
    assert [(t, out["index"], out["part"]) for t, out in enumerate(seen) if out["active"]] == expected
    assert [t for t, out in enumerate(seen) if out["last"]] == [expected[-1][0]]
    assert [t for t, out in enumerate(seen) if out["busy"]] == list(range(3 + ENGINE, expected[-1][0] + 1))


@pytest.mark.parametrize(("again", "conflicts"), [(7, [7]), (8, []), (9, [])])
def test_restart_in_the_last_part(again: int, conflicts: list[int]):
    seen = run(Op.READ, {0: read(2, 4), again: read(1, 1)}, fold=4)
    assert [t for t, out in enumerate(seen) if out["conflict"]] == conflicts
    assert [t for t, out in enumerate(seen) if out["active"] and t > again] == list(range(again + 1, again + 5))


def test_an_operation_without_count_has_one_element():
    seen = run(Op.INDEX, {2: Instr(Op.INDEX)})
    assert [t for t, out in enumerate(seen) if out["active"] and out["last"]] == [2 + ENGINE]
    assert not seen[2 + ENGINE + 1]["busy"]

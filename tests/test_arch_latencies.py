"""Optional pipeline registers: what they are called, what they cost, and that they make another chip."""

from dataclasses import asdict, replace

import pytest

from arch import isa
from arch.config import CONFIGS, REGISTERS
from arch.latencies import ADDED, Latencies, latencies

TINY = CONFIGS["tiny"]


def test_without_registers_the_latencies_are_those_of_the_isa():
    assert asdict(latencies(TINY)) == {name: getattr(isa, name.upper()) for name in asdict(Latencies())}


@pytest.mark.parametrize("name", REGISTERS)
def test_a_register_costs_what_is_said(name: str):
    plain, longer = asdict(latencies(TINY)), asdict(latencies(replace(TINY, registers=(name,))))
    assert {latency: longer[latency] - plain[latency] for latency in plain} == {
        latency: int(latency in ADDED[name]) for latency in plain}


def test_costs_add_up():
    every = latencies(replace(TINY, registers=tuple(REGISTERS)))
    assert every.vxm_reduce_drive == isa.VXM_REDUCE_DRIVE + 2 and every.vxm_rf == isa.VXM_RF + 1


def test_the_registers_are_part_of_a_chips_identity():
    digests = {TINY.digest(), *(replace(TINY, registers=(name,)).digest() for name in REGISTERS)}
    assert len(digests) == 1 + len(REGISTERS)


@pytest.mark.parametrize(("registers", "words"), [
    (("fetch", "brake"), "registers must be among fetch, control, .*, not 'brake'"),
    (("fetch", "fetch"), "registers must name each register once")])
def test_other_registers_are_refused(registers: tuple[str, ...], words: str):
    with pytest.raises(ValueError, match=words):
        replace(TINY, registers=registers)

"""The register file."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from arch.config import ChipConfig


def write_layout(lanes: int) -> data.StructLayout:
    """Writes to the register and exponent files, `lanes` lanes wide. Register data is plane by plane, as in a group."""
    return data.StructLayout({"rf_we": 1, "rf_index": 5, "rf_data": 32 * lanes,
                              "er_we": 1, "er_index": 4, "er_data": 8 * lanes})


class RegisterFile(wiring.Component):
    """The registers, in two banks. Each reader selects the bank in its own multiplexer.

    A write with `we` takes effect at the end of the cycle. Reads (`read`) show the contents of the current cycle.

    we: write enable.
    index: number of the register, with the number of the part in its low bits.
    data: the lanes of that part.
    """

    def __init__(self, config: ChipConfig):
        depth, bits = config.rf_depth * config.vxm_fold, 32 * config.vxm_lanes
        self._index_bits = (depth - 1).bit_length()
        self._banks = [Memory(shape=bits, depth=depth // 2, init=[]) for _ in range(2)]
        part_bits = (config.vxm_fold - 1).bit_length()
        super().__init__({"we": In(1), "index": In(part_bits + 5), "data": In(bits)})

    def _bank(self, index: Value) -> Value:
        return index[self._index_bits - 1]

    def read(self, m: Module, part: Value, register: Value, following: Value) -> SimpleNamespace:
        """Add a read port. Call it before elaboration.

        part, register: the part and the register to read in this cycle.
        following: the register of the next cycle.

        Returns the word of either bank (`even`, `odd`), and the bank of the next cycle's register (`bank_following`).
        """
        ports = [bank.read_port(domain="comb") for bank in self._banks]
        m.d.comb += [port.addr.eq(Cat(part, register)[: self._index_bits - 1]) for port in ports]
        even, odd = ports
        return SimpleNamespace(even=even.data, odd=odd.data, bank_following=self._bank(Cat(part, following)))

    def elaborate(self, platform):
        m = Module()
        for number, bank in enumerate(self._banks):
            m.submodules[f"bank{number}"] = bank
            port = bank.write_port()
            m.d.comb += [port.en.eq(self.we & (self._bank(self.index) == number)), port.data.eq(self.data),
                         port.addr.eq(self.index[: self._index_bits - 1])]
        return m

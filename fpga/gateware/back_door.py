"""The top of a simulated board that has a second way to the chip's host port. No bitstream has it."""

from types import MappingProxyType

from amaranth.hdl import Mux, Value
from amaranth.lib.wiring import In

from arch.host_map import WORD, Space

from .bridge import Bridge
from .top import Core


class BackDoor(Core):
    """`Core` with a back door, for simulation.

    back_write: in this cycle the chip gets the write of `back_*` in place of the bridge's access. The bridge must be
    at rest.
    back_space, back_addr, back_wdata: the write.
    """

    PORTS = MappingProxyType({
        **Core.PORTS, "back_space": In(Space), "back_addr": In(32), "back_wdata": In(WORD), "back_write": In(1),
    })

    def _host(self, name: str, bridge: Bridge) -> Value:
        own = getattr(self, name.replace("host_", "back_"), None)
        return getattr(bridge, name) if own is None else Mux(self.back_write, own, getattr(bridge, name))

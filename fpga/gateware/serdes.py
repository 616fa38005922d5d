"""The interface that all technologies' pins of a link have."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.link.parameters import LinkParameters


class Pins(wiring.Component):
    """The pins of a `hw.link.endpoint.Endpoint`. Each technology is a subclass.

    link: parameters of the link.
    index: number of the link. Its receiving domain is rx<index>, without reset. A parent defines the domain, the pins
    drive its clock.
    beats, sampled, delay_load, delay_step: ports of the endpoint.
    out_data, out_clock, in_data, in_clock: to the buffers of the pins.
    """

    def __init__(self, link: LinkParameters, index: int = 0):
        self._link, self._index = link, index
        super().__init__({
            "beats": In(link.ratio * link.beat_bits), "sampled": Out(link.beat_bits),
            "delay_load": In(link.pins), "delay_step": In(link.pins),
            "out_data": Out(link.pins), "out_clock": Out(1), "in_data": In(link.pins), "in_clock": In(1),
        })

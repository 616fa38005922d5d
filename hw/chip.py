"""The whole chip: queues, units, the streams between them, and the host port."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import MXM_W, PLANES, POSITIONS, ChipConfig
from arch.host_map import WORD, Space, Trap
from arch.isa import LOOP_LEVELS, PC_BITS, width
from arch.row import Queue, queue_depth, queues

from . import c2c, mem, mxm, sxm
from .host import HostPort
from .icu import Icu
from .idioms import any_of
from .sequencer import Sequencer
from .stream import Streams
from .vxm import unit as vxm

UNITS = {"VXM": vxm.Vxm, "SXM": sxm.Sxm, "MXM": mxm.Mxm, "MEM": mem.Mem, "C2C": c2c.C2c}
PROBES = {"VXM": vxm, "SXM": sxm, "MXM": mxm, "MEM": mem, "C2C": c2c}
HOST_PORT = ("host_space", "host_addr", "host_wdata", "host_write", "host_read", "host_rdata")


def probe_ports(config: ChipConfig) -> dict:
    """The additional ports of a debug build; see `Chip`."""
    wide, streams, count = config.streams * config.plane_bits, config.streams, len(queues(config))
    ports = {"issued": Out(count), "parked": Out(count)}
    for p in range(POSITIONS):
        ports |= {f"e_{p}": Out(wide), f"w_{p}": Out(wide),
                  f"e_driven_{p}": Out(streams), f"w_driven_{p}": Out(streams)}
    for queue in queues(config):
        ports |= {f"probe_{queue.name}": Out(PROBES[queue.unit].probe_layout(config)),
                  f"traps_{queue.name}": Out(len(Trap))}
    return ports


def own_ports(config: ChipConfig) -> dict:
    """The ports of any chip; see `Chip`."""
    ports = {
        "host_space": In(Space), "host_addr": In(32), "host_wdata": In(WORD), "host_write": In(1),
        "host_read": In(1), "host_rdata": Out(WORD),
        "running": Out(1), "token_start": Out(1), "errors": Out(len(Trap)),
    }
    return ports | probe_ports(config) if config.debug else ports


def link_ports(config: ChipConfig) -> dict:
    """The ports of a chip with links; see `Chip`."""
    ports: dict = {"ready": Out(1), "begin": In(1), "token_end": Out(1)} if any(config.ports) else {}
    for side in "WE":
        if count := config.ports_of(side):
            ports |= {f"send_{side}": Out(count), f"data_{side}": Out(config.plane_bits),
                      f"flits_{side}": In(count * config.plane_bits), f"take_{side}": Out(count)}
            if config.debug:
                ports[f"arrived_{side}"] = In(count)
    return ports


class Chip(wiring.Component):
    """A whole chip.

    config: the chip to build.

    host_space, host_addr, host_wdata, host_write, host_read: one access a cycle; see `isa.Space` and `isa.Control`.
    host_rdata: valid HOST_READ (4) cycles after host_read.
    running: from RUN to the end of the last token's period. token_start: pulse at the start of each token.
    errors: sticky trap bits.

    Chips with links have besides, for each end W and E of the row that has some, with a bit or a plane each port:
    send_<end>, data_<end>: a slot that begins in this cycle holds the flit `data`, the same on all these ports.
    flits_<end>, take_<end>: the flit that arrives in this cycle, if one does; it is taken.
    ready, begin: the first token of a run is due; its start pulse comes in the next cycle. Slots begin in start pulses'
    cycles and every `ChipConfig.slot` cycles from there on. token_end: the last cycle of a token.
    arrived_<end>: a flit arrives in this cycle, not a control frame (debug builds).

    Debug builds have outputs that show the state of the current cycle:
    e_<p>, w_<p>, e_driven_<p>, w_driven_<p>: the stream registers of position p.
    issued, parked: one bit per queue: it dispatches an operation of its unit; it is parked.
    probe_<queue>: state writes of its unit (layout: `probe` port of the unit). traps_<queue>: trap pulses.
    """

    def __init__(self, *, config: ChipConfig):
        self._config = config
        self._queues = queues(config)
        super().__init__(own_ports(config) | link_ports(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.host = host = HostPort(config=self._config)
        m.submodules.sequencer = sequencer = Sequencer(config=self._config)
        m.submodules.streams = streams = Streams(config=self._config, queues=self._queues)
        icus = [Icu(config=self._config, queue=queue) for queue in self._queues]
        units = [UNITS[queue.unit](config=self._config, queue=queue) for queue in self._queues]
        for n, (queue, icu, unit) in enumerate(zip(self._queues, icus, units, strict=True)):
            m.submodules[f"icu_{queue.name}"] = icu
            m.submodules[f"unit_{queue.name}"] = unit
            self._connect_queue(m, n, icu, host, sequencer)
            self._connect_unit(m, n, icu, unit, streams)
        self._connect_host(m, units, host, sequencer)
        m.d.comb += streams.clear.eq(host.mem_write)
        parked, busy = Cat(icu.parked for icu in icus), Cat(unit.busy for unit in units)
        m.d.comb += [
            sequencer.idle.eq(parked.all() & ~busy.any()),
            self.running.eq(sequencer.running), self.token_start.eq(sequencer.start), self.errors.eq(sequencer.errors),
        ]
        if any(self._config.ports):
            self._connect_links(m, units, sequencer)
        if self._config.debug:
            self._connect_probes(m, icus, units, streams, sequencer)
        return m

    def _connect_queue(self, m: Module, n: int, icu: Icu, host: HostPort, sequencer: Sequencer) -> None:
        queue = self._queues[n]
        m.d.comb += [
            icu.start.eq(sequencer.start), icu.bucket.eq(sequencer.bucket),
            icu.load_we.eq(host.icu_we[n]),
            icu.load_addr.eq(host.icu_addr[: (queue_depth(self._config, queue) - 1).bit_length()]),
            icu.load_number.eq(host.icu_number[: len(icu.load_number)]),
            icu.load_data.eq(host.icu_data[: width(queue.unit)]),
            icu.table_we.eq(host.table_we[n]), icu.table_addr.eq(host.table_addr[: len(icu.table_addr)]),
            icu.table_data.eq(host.wdata[:PC_BITS]),
        ]

    def _connect_unit(self, m: Module, n: int, icu: Icu, unit: wiring.Component, streams: Streams) -> None:
        queue = self._queues[n]
        e, w = streams.e[queue.position], streams.w[queue.position]
        group = self._config.group_bits
        m.d.comb += [
            unit.word.eq(icu.word), unit.valid.eq(icu.valid),
            unit.e_in.eq(e[:group]), unit.w_in.eq(w[:group]),
            streams.e_data[n].eq(unit.e_data), streams.e_drive[n].eq(unit.e_drive),
            streams.w_data[n].eq(unit.w_data), streams.w_drive[n].eq(unit.w_drive),
        ]
        if queue.unit == "MEM":
            m.d.comb += [
                *(unit.offsets[k].eq(icu.offsets[k]) for k in range(LOOP_LEVELS)),
                streams.weights_data[n].eq(unit.weights_data), streams.weights_drive[n].eq(unit.weights_drive),
            ]
        if queue.unit == "MXM":
            m.d.comb += unit.weights.eq((w if queue.position == MXM_W else e)[group:])
        if self._config.debug:
            driven = streams.e_driven[queue.position], streams.w_driven[queue.position]
            m.d.comb += [unit.e_driven.eq(driven[0][:PLANES]), unit.w_driven.eq(driven[1][:PLANES])]
            if queue.unit == "MXM":
                m.d.comb += unit.weights_driven.eq(driven[queue.position == MXM_W][PLANES:])

    def _connect_host(self, m: Module, units: list, host: HostPort, sequencer: Sequencer) -> None:
        for name in HOST_PORT[:-1]:
            m.d.comb += getattr(host, name).eq(getattr(self, name))
        slices = [unit for unit in units if isinstance(unit, mem.Mem)]
        for n, unit in enumerate(slices):
            m.d.comb += [
                unit.host_addr.eq(host.mem_addr), unit.host_planes.eq(host.mem_planes),
                unit.host_wdata.eq(host.mem_wdata), unit.host_we.eq(host.mem_we[n]), unit.host_re.eq(host.mem_re[n]),
            ]
        for unit in units:
            if isinstance(unit, sxm.Sxm):
                m.d.comb += [unit.map_we.eq(host.map_we), unit.map_index.eq(host.small_addr[: len(unit.map_index)]),
                             unit.map_data.eq(host.wdata)]
        m.d.comb += [
            self.host_rdata.eq(host.host_rdata), host.mem_rdata.eq(any_of([unit.host_rdata for unit in slices])),
            sequencer.wdata.eq(host.wdata), sequencer.control_we.eq(host.control_we),
            sequencer.bucket_we.eq(host.bucket_we), sequencer.bucket_addr.eq(host.small_addr),
            *(host.control[n].eq(value) for n, value in enumerate(sequencer.control)),
        ]

    def _connect_links(self, m: Module, units: list, sequencer: Sequencer) -> None:
        m.d.comb += [self.ready.eq(sequencer.ready), sequencer.begin.eq(self.begin),
                     self.token_end.eq(sequencer.token_end)]
        for queue, unit in zip(self._queues, units, strict=True):
            if queue.unit == "C2C":
                send, data, flits, take = (getattr(self, f"{name}_{queue.side}")
                                           for name in ("send", "data", "flits", "take"))
                m.d.comb += [send.eq(unit.send), data.eq(unit.data), unit.flits.eq(flits), take.eq(unit.take)]
                if self._config.debug:
                    m.d.comb += [unit.arrived.eq(getattr(self, f"arrived_{queue.side}")),
                                 unit.begins.eq(self._slot_begins(m, queue, sequencer))]

    def _slot_begins(self, m: Module, queue: Queue, sequencer: Sequencer) -> Value:
        """Whether a slot begins in this cycle; they are counted from the last start pulse."""
        phase = Signal(range(self._config.slot), name=f"phase_{queue.name}")
        m.d.sync += phase.eq(phase + 1)
        with m.If(sequencer.start):
            m.d.sync += phase.eq(1)
        return sequencer.start | (phase == 0)

    def _connect_probes(self, m: Module, icus: list, units: list, streams: Streams, sequencer: Sequencer) -> None:
        m.d.comb += [self.issued.eq(Cat(icu.valid for icu in icus)), self.parked.eq(Cat(icu.parked for icu in icus))]
        for p in range(POSITIONS):
            for name in ("e", "w", "e_driven", "w_driven"):
                m.d.comb += getattr(self, f"{name}_{p}").eq(getattr(streams, name)[p])
        traps = []
        for queue, icu, unit in zip(self._queues, icus, units, strict=True):
            pulses = getattr(self, f"traps_{queue.name}")
            m.d.comb += [getattr(self, f"probe_{queue.name}").eq(unit.probe), pulses.eq(icu.traps | unit.traps)]
            traps.append(pulses)
        m.d.comb += sequencer.traps.eq(any_of(traps) | (streams.collision << Trap.COLLISION.value))

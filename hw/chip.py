"""The whole chip: queues, units, the streams between them, and the host port."""

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import POSITIONS, ChipConfig
from .host import WORD, HostPort, Sequencer
from .icu import Icu
from .isa import LOOP_LEVELS, PC_BITS, Space, Trap, queue_depth, queues, width
from .mem import Mem
from .mxm import Mxm
from .slice import PLANE_BITS, any_of
from .stream import Streams
from .sxm import Sxm
from .vxm import Vxm

UNITS = {"VXM": Vxm, "SXM": Sxm, "MXM": Mxm, "MEM": Mem}
HOST_PORT = ("host_space", "host_addr", "host_wdata", "host_write", "host_read", "host_rdata")


class Chip(wiring.Component):
    """A chip.

    config: which one.

    host_space, host_addr, host_wdata, host_write, host_read: one access a cycle; see `isa.Space` and `isa.Control`.
    host_rdata: valid HOST_READ (4) cycles after host_read.
    running: from RUN to the end of the last token's period. token_start: pulse at the start of each token.
    errors: sticky trap bits.

    Debug builds show what changes, each value being that of the present cycle:
    e_<p>, w_<p>, e_driven_<p>, w_driven_<p>: the stream registers of position p.
    issued, parked: a bit each queue: it dispatches an operation of its unit, it is parked.
    probe_<queue>: state writes of its unit (layout: `probe` port of the unit). traps_<queue>: trap pulses.
    """

    def __init__(self, *, config: ChipConfig):
        self._config = config
        self._queues = queues(config)
        self._units = [UNITS[queue.unit](config=config, queue=queue) for queue in self._queues]
        ports = {
            "host_space": In(Space), "host_addr": In(32), "host_wdata": In(WORD), "host_write": In(1),
            "host_read": In(1), "host_rdata": Out(WORD),
            "running": Out(1), "token_start": Out(1), "errors": Out(len(Trap)),
        }
        if config.debug:
            ports |= self._probes()
        super().__init__(ports)

    def _probes(self) -> dict:
        wide, streams, count = self._config.streams * PLANE_BITS, self._config.streams, len(self._queues)
        ports = {"issued": Out(count), "parked": Out(count)}
        for p in range(POSITIONS):
            ports |= {f"e_{p}": Out(wide), f"w_{p}": Out(wide),
                      f"e_driven_{p}": Out(streams), f"w_driven_{p}": Out(streams)}
        for queue, unit in zip(self._queues, self._units, strict=True):
            ports |= {f"probe_{queue.name}": Out(unit.signature.members["probe"].shape),
                      f"traps_{queue.name}": Out(len(Trap))}
        return ports

    def elaborate(self, platform):
        m = Module()
        m.submodules.host = host = HostPort(config=self._config)
        m.submodules.sequencer = sequencer = Sequencer(config=self._config)
        m.submodules.streams = streams = Streams(
            config=self._config, positions=tuple(queue.position for queue in self._queues))
        icus = [Icu(config=self._config, queue=queue) for queue in self._queues]
        for n, (queue, icu, unit) in enumerate(zip(self._queues, icus, self._units, strict=True)):
            m.submodules[f"icu_{queue.name}"] = icu
            m.submodules[f"unit_{queue.name}"] = unit
            self._connect_queue(m, n, icu, host, sequencer)
            self._connect_unit(m, n, icu, unit, streams)
        self._connect_host(m, host, sequencer)
        parked, busy = Cat(icu.parked for icu in icus), Cat(unit.busy for unit in self._units)
        m.d.comb += [
            sequencer.idle.eq(parked.all() & ~busy.any()),
            self.running.eq(sequencer.running), self.token_start.eq(sequencer.start), self.errors.eq(sequencer.errors),
        ]
        if self._config.debug:
            self._connect_probes(m, icus, streams, sequencer)
        return m

    def _connect_queue(self, m: Module, n: int, icu: Icu, host: HostPort, sequencer: Sequencer) -> None:
        queue = self._queues[n]
        m.d.comb += [
            icu.start.eq(sequencer.start), icu.bucket.eq(sequencer.bucket),
            icu.load_we.eq(host.icu_we[n]),
            icu.load_addr.eq(host.icu_addr[: (queue_depth(self._config, queue) - 1).bit_length()]),
            icu.load_data.eq(host.icu_data[: width(queue.unit)]),
            icu.table_we.eq(host.table_we[n]), icu.table_addr.eq(host.table_addr[: len(icu.table_addr)]),
            icu.table_data.eq(host.wdata[:PC_BITS]),
        ]

    def _connect_unit(self, m: Module, n: int, icu: Icu, unit: wiring.Component, streams: Streams) -> None:
        position = self._queues[n].position
        m.d.comb += [
            unit.word.eq(icu.word), unit.valid.eq(icu.valid),
            unit.e_in.eq(streams.e[position]), unit.w_in.eq(streams.w[position]),
            streams.e_data[n].eq(unit.e_data), streams.e_drive[n].eq(unit.e_drive),
            streams.w_data[n].eq(unit.w_data), streams.w_drive[n].eq(unit.w_drive),
        ]
        if self._queues[n].unit == "MEM":
            m.d.comb += [unit.offsets[k].eq(icu.offsets[k]) for k in range(LOOP_LEVELS)]
        if self._config.debug:
            m.d.comb += [unit.e_driven.eq(streams.e_driven[position]), unit.w_driven.eq(streams.w_driven[position])]

    def _connect_host(self, m: Module, host: HostPort, sequencer: Sequencer) -> None:
        for name in HOST_PORT[:-1]:
            m.d.comb += getattr(host, name).eq(getattr(self, name))
        mems = [unit for unit in self._units if isinstance(unit, Mem)]
        for n, mem in enumerate(mems):
            m.d.comb += [
                mem.host_addr.eq(host.mem_addr), mem.host_planes.eq(host.mem_planes), mem.host_wdata.eq(host.wdata),
                mem.host_we.eq(host.mem_we[n]), mem.host_re.eq(host.mem_re[n]),
            ]
        for unit in self._units:
            if isinstance(unit, Sxm):
                m.d.comb += [unit.map_we.eq(host.map_we), unit.map_index.eq(host.small_addr[: len(unit.map_index)]),
                             unit.map_data.eq(host.wdata[:64])]
        m.d.comb += [
            self.host_rdata.eq(host.host_rdata), host.mem_rdata.eq(any_of([mem.host_rdata for mem in mems])),
            sequencer.wdata.eq(host.wdata), sequencer.control_we.eq(host.control_we),
            sequencer.bucket_we.eq(host.bucket_we), sequencer.bucket_addr.eq(host.small_addr),
            *(host.control[n].eq(value) for n, value in enumerate(sequencer.control)),
        ]

    def _connect_probes(self, m: Module, icus: list[Icu], streams: Streams, sequencer: Sequencer) -> None:
        m.d.comb += [self.issued.eq(Cat(icu.valid for icu in icus)), self.parked.eq(Cat(icu.parked for icu in icus))]
        for p in range(POSITIONS):
            for name in ("e", "w", "e_driven", "w_driven"):
                m.d.comb += getattr(self, f"{name}_{p}").eq(getattr(streams, name)[p])
        traps = []
        for queue, icu, unit in zip(self._queues, icus, self._units, strict=True):
            pulses = getattr(self, f"traps_{queue.name}")
            m.d.comb += [getattr(self, f"probe_{queue.name}").eq(unit.probe), pulses.eq(icu.traps | unit.traps)]
            traps.append(pulses)
        m.d.comb += sequencer.traps.eq(any_of(traps) | (streams.collision << Trap.COLLISION.value))

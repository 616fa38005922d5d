"""Opens a device by its name: the reference, a simulated chip, or the board at a serial port."""

from pathlib import Path

from hw.config import ChipConfig
from sim.device import Device
from sim.devices import is_port, open_device


def open_any(name: str, config: ChipConfig, *, trace: Path | None = None, trace_format: str = "vcd") -> Device:
    """The device of a name, or the board at a serial port. trace: file of waveforms, by the RTL only. Raises TspError.
    """
    if not is_port(name):
        return open_device(name, config, trace=trace, trace_format=trace_format)
    from fpga.link import open_board

    return open_board(name, config)

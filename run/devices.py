"""Opens a device by its name: the reference, a simulated chip, or the board at a serial port."""

import os
from pathlib import Path

from arch.config import ChipConfig
from base.errors import TspError
from base.files import check_output
from sim.device.chip_device import ChipDevice
from sim.device.protocol import Device

NAMES = ("reference", "model", "rtl")


def check_name(name: str) -> str:
    """The name of a device, or a serial port; raises TspError if it is neither."""
    if name not in NAMES and not is_port(name):
        raise TspError(f"device must be one of {', '.join(NAMES)}, or a serial port such as /dev/ttyUSB0, not {name!r}")
    return name


def is_port(name: str) -> bool:
    """Whether this names a serial port: a path, or a URL of pyserial."""
    return os.sep in name


def check_waveforms(name: str) -> None:
    """Raises TspError unless a device can write waveforms."""
    if name != "rtl":
        raise TspError(f"only the RTL has waveforms, not device {name}: use --device rtl")


def open_device(name: str, config: ChipConfig, *, trace: Path | None = None, trace_format: str = "vcd") -> Device:
    """A device with a chip of `config`, just reset. trace: file of waveforms, by the RTL only. Raises TspError."""
    check_name(name)
    if trace is not None:
        check_waveforms(name)
    if is_port(name):
        from fpga.host.board import open_board

        return open_board(name, config)
    if name == "reference":
        from sim.device.reference_device import ReferenceDevice

        return ReferenceDevice()
    if name == "model":
        from sim.cycle.chip import ModelChip

        return ChipDevice(name, ModelChip(config))
    from sim.rtl.chip import VerilatedChip

    if trace is not None:
        check_output(trace)
    return ChipDevice(name, VerilatedChip(config, trace=trace, trace_format=trace_format))

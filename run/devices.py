"""Opens a device by its name: the reference, a simulated chip or rack, or the board at a serial port."""

import os
from pathlib import Path

from arch.config import ChipConfig
from arch.rack import RackConfig
from base.errors import TspError
from base.files import check_output
from sim.device.chip_device import ChipDevice
from sim.device.in_flight import InFlight
from sim.device.protocol import Device
from sim.device.rack import HostedRack
from sim.lines import LineFaults, Lines
from sim.memory import available_memory, check_memory
from sim.rtl.ranks import current

SIMULATED = "model", "rtl"
NAMES = ("reference", *SIMULATED)


def check_name(name: str) -> str:
    """The name of a device, or a serial port; raises TspError if it is neither."""
    if name not in NAMES and not is_port(name):
        raise TspError(f"device must be one of {', '.join(NAMES)}, or a serial port such as /dev/ttyUSB0, not {name!r}")
    return name


def is_port(name: str) -> bool:
    """Whether this names a serial port, or several with commas between them: paths, or URLs of pyserial."""
    return os.sep in name


def ports_of(name: str) -> list[str]:
    """The serial ports that a device's name consists of."""
    return name.split(",")


def check_waveforms(name: str) -> None:
    """Raises TspError unless a device can write waveforms."""
    if name != "rtl":
        raise TspError(f"only the RTL has waveforms, not device {name}: use --device rtl")


def check_faults(name: str, config: ChipConfig | RackConfig, faults: LineFaults | None) -> None:
    """Raises TspError unless a device has links that may be given faults."""
    if faults is not None and (name not in SIMULATED or not isinstance(config, RackConfig)):
        raise TspError(f"only simulated racks have link faults, not device {name} with {config.name}: use --rack, and "
                       "--device model or rtl")


def open_device(name: str, config: ChipConfig | RackConfig, *, trace: Path | None = None, trace_format: str = "vcd",
                faults: LineFaults | None = None) -> Device:
    """A device with a chip or rack of `config`, just reset. Raises TspError.

    trace: file of waveforms, by the RTL of one chip only. faults: of a simulated rack's links.
    """
    check_name(name)
    check_faults(name, config, faults)
    if trace is not None:
        check_waveforms(name)
    if name == "reference":
        from sim.device.reference_device import ReferenceDevice

        return ReferenceDevice()
    if isinstance(config, RackConfig):
        return _rack(name, config, trace, faults)
    return _chip(name, config, trace, trace_format)


def _chip(name: str, config: ChipConfig, trace: Path | None = None, trace_format: str = "vcd") -> ChipDevice:
    if is_port(name):
        from fpga.host.board import open_board

        if len(ports_of(name)) > 1:
            raise TspError(f"the program is for one chip, config {config.name}: name one port, not {name}; for linked "
                           "boards, compile with --rack")
        return open_board(name, config)
    if name == "model":
        from sim.cycle.chip import ModelChip

        return ChipDevice(name, ModelChip(config))
    from sim.rtl.chip import VerilatedChip

    if trace is not None:
        check_output(trace)
    return ChipDevice(name, VerilatedChip(config, trace=trace, trace_format=trace_format))


def open_in_flight(name: str, config: ChipConfig | RackConfig) -> InFlight:
    """A device that runs a sequence for each chip of a rack, or several on one chip, just reset. Raises TspError."""
    from sim.device.in_flight import ChipTogether, RackInFlight, ReferenceInFlight

    check_name(name)
    if name == "reference":
        return ReferenceInFlight()
    if isinstance(config, ChipConfig):
        return ChipTogether(_chip(name, config))
    if is_port(name):
        raise TspError(f"sequences in flight run on simulated racks only, not on {name}: use --device rtl, model or "
                       "reference")
    return RackInFlight(name, _hosted(name, config))


def _rack(name: str, rack: RackConfig, trace: Path | None, faults: LineFaults | None) -> Device:
    from sim.device.rack import RackDevice

    if trace is not None:
        raise TspError(f"waveforms show one chip, not rack {rack.name}: leave out --vcd and --fst")
    if is_port(name):
        from fpga.host.rack import open_rack

        return open_rack(ports_of(name), rack)
    return RackDevice(name, _hosted(name, rack), Lines(rack, faults) if faults else None)


def _hosted(name: str, rack: RackConfig) -> HostedRack:
    """The simulated chips of a rack; with the RTL, in all ranks in which this command was started."""
    if name == "rtl" and (ranks := current()):
        from sim.rtl.spread import SpreadRack

        return SpreadRack(rack, ranks)
    check_memory(rack, available_memory())
    if name == "model":
        from sim.rack import ModelRack

        return ModelRack(rack)
    from sim.rtl.linked import VerilatedRack

    return VerilatedRack(rack)

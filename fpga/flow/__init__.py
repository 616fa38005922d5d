"""From RTL to a bitstream with the open tools, and its report."""

"""How long an OpenAI-compatible server takes, by the clock on the wall and, where it tells, on the chip."""

"""Settings of all tests."""

import cli.one_thread  # noqa: F401  before numpy is imported

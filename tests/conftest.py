"""Settings of all tests."""

import pytest

import base.one_thread  # noqa: F401  before numpy is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the texts in tests/golden anew")

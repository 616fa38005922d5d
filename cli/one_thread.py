"""Imported before anything that imports numpy: see `base.one_thread`."""

import base.one_thread  # noqa: F401

"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("everyday", derandomize=True)  # the same examples in every run
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))

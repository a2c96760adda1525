"""What holds for every test: how many examples hypothesis tries, chosen by the variable HYPOTHESIS_PROFILE.

Runs are derandomised, so that a change is judged by the change alone; only `nightly` looks for new cases. There is
no deadline per example, because the machines that run the tests are shared and noisy.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

QUIET: Final = (HealthCheck.too_slow,)

settings.register_profile("dev", max_examples=50, derandomize=True, deadline=None, suppress_health_check=QUIET)
settings.register_profile("ci", max_examples=200, derandomize=True, deadline=None, suppress_health_check=QUIET)
settings.register_profile("nightly", max_examples=20_000, deadline=None, suppress_health_check=QUIET, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

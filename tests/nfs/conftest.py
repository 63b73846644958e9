# SPDX-License-Identifier: BSD-2-Clause
"""The fixtures of the system tests."""
from system.conftest import *  # noqa: F403

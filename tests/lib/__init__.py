# SPDX-License-Identifier: BSD-2-Clause
"""What system tests and benchmarks share: trees, processes, random work, a bad network."""

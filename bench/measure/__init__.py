# SPDX-License-Identifier: Apache-2.0
"""The measurements behind ./dev bench: programs, the engine, the machine's facts, reports."""

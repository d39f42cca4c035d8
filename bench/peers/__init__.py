# SPDX-License-Identifier: Apache-2.0
"""Other mail servers doing the same work."""

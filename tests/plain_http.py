"""What HTTP clients of tests have in common where the server has no TLS."""

from __future__ import annotations

import ssl
from typing import Final

NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`verify` of such a client. Reading the system's authorities, which each client and each `httpx2.get` would do, takes 28 ms of
processor time, three times as long as a request."""

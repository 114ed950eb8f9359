#!/opt/artcafe/bin/python
"""Exit with 0 if the server of this container is alive, and with 1 and a sentence otherwise.

The server writes its address into the data folder, so the check needs no setting. It asks `/health/live`, and not
`/health/ready`: a container without NATS or tables should be waited for, not replaced.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path


def main() -> None:
    """Ask the server."""
    try:
        address = json.loads(Path(os.environ.get("ARTCAFE_DATA_DIR", "/data"), "server.json").read_text())["url"]
        # The certificate is for the server's public name, and this connection does not leave the container.
        unverified = ssl._create_unverified_context()  # noqa: S323 (as above)
        # No proxy of the environment: it is for the server's requests to its issuer.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified))
        direct.open(f"{address}/health/live", timeout=4).close()
    except (OSError, ValueError, KeyError) as exc:
        sys.exit(f"the server is not alive: {exc}")


if __name__ == "__main__":
    main()

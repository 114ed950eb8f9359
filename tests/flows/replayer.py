"""A process that offers whatever proofs it is handed, one a line of standard input, to one server, and prints each answer.

Not a test: `test_replay` runs several at once.
"""

from __future__ import annotations

import sys

import httpx


def main(url: str) -> None:
    """Says `ready`, and then one HTTP status a line."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        http.get("/v1")  # so that the connection is there when it matters
        print("ready", flush=True)  # noqa: T201 (it is what this process is for)
        for proof in sys.stdin:
            answer = http.post("/v1/auth/tokens", content=proof, headers={"Content-Type": "application/json"})
            print(answer.status_code, flush=True)  # noqa: T201 (as above)


if __name__ == "__main__":
    main(sys.argv[1])

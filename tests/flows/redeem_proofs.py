"""Offer proofs to one server: read one proof per line of standard input, and print the status of each answer.

Not a test: `test_replay` runs several of these processes at once.
"""

from __future__ import annotations

import sys

import httpx2


def main(url: str) -> None:
    """Print `ready`, then one HTTP status per line."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=30) as http:
        http.get("/v1")  # open the connection before the timed part
        print("ready", flush=True)  # noqa: T201 (it is what this process is for)
        for proof in sys.stdin:
            answer = http.post("/v1/auth/tokens", content=proof, headers={"Content-Type": "application/json"})
            print(answer.status_code, flush=True)  # noqa: T201 (as above)


if __name__ == "__main__":
    main(sys.argv[1])

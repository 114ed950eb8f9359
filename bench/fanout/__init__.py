"""Fan-out."""

from bench.fanout.windows import run

__all__ = ["run"]

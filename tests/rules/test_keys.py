"""Fingerprints of stored key lines."""

from __future__ import annotations

from artcafe.rules import keys
from artcafe.wire.sshkeys import parse_public_key

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkLKM6rbiRrNTC7aCk5pVAqxzYZpXvVPlVTMoBZqYqQ"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILpCRY6DunkmuouPPpq5yq8PHEkY3ajFUQhPeusQZbdL"


def test_fingerprint_of_a_line_is_its_keys_on_every_call() -> None:
    for line in (LINE, OTHER, LINE, f"{LINE} with a comment"):
        assert keys.fingerprint(line) == parse_public_key(line).fingerprint


def test_line_refused_by_registration_has_no_fingerprint() -> None:
    assert keys.fingerprint("ssh-dss AAAAB3NzaC1kc3M=") is None

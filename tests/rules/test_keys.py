"""The fingerprints of stored key lines."""

from __future__ import annotations

from artcafe.rules import keys
from artcafe.wire.sshkeys import parse_public_key

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkLKM6rbiRrNTC7aCk5pVAqxzYZpXvVPlVTMoBZqYqQ"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILpCRY6DunkmuouPPpq5yq8PHEkY3ajFUQhPeusQZbdL"


def test_fingerprint_of_a_line_is_that_of_its_key_however_often_it_is_asked_for() -> None:
    for line in (LINE, OTHER, LINE, f"{LINE} with a comment"):
        assert keys.fingerprint(line) == parse_public_key(line).fingerprint


def test_line_that_could_not_be_registered_today_has_no_fingerprint() -> None:
    assert keys.fingerprint("ssh-dss AAAAB3NzaC1kc3M=") is None

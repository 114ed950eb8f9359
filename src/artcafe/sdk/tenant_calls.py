"""What the calls of a tenant have in common. `sdk.tenant_client` has the instances."""

from __future__ import annotations

from artcafe.sdk.http import HttpClient, path_of


class TenantCalls:
    """Calls for one kind of thing in one tenant, over one HTTP client."""

    def __init__(self, http: HttpClient, tenant: str) -> None:
        self._http, self._tenant = http, tenant

    def _path(self, *parts: str) -> str:
        """Return the path of the tenant, or of something in it. Raises `Invalid` as `path_of` does."""
        return path_of(self._tenant, *parts)

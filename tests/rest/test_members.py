from __future__ import annotations

from artcafe.model import Role
from tests.rest.rest_app import Caller, RestApp, Tenant


def me(caller: Caller) -> str:
    return str(caller.get("/v1/me").json()["user_id"])


def accept(caller: Caller, token: str, **more: str) -> tuple[int, dict[str, object]]:
    answer = caller.post("/v1/invitations/acceptances", json={"token": token, **more})
    return answer.status_code, answer.json()


def test_invitation_is_created_listed_accepted_and_removed(rest_app: RestApp, tenant: Tenant) -> None:
    made = tenant.owner.post(f"{tenant.path}/members", json={"address": "Zoe@example.com", "role": "admin"})
    assert made.status_code == 201
    token = made.json()["token"]
    assert {name: made.json()[name] for name in ("tenant_id", "address", "role", "invited_by")} == {
        "tenant_id": tenant.id,
        "address": "zoe@example.com",
        "role": "admin",
        "invited_by": f"usr:{me(tenant.owner)}",
    }
    listed = tenant.owner.get(f"{tenant.path}/invitations").json()["items"]
    (open_one,) = [each for each in listed if each["id"] == made.json()["id"]]
    assert open_one == {name: value for name, value in made.json().items() if name != "token"}
    assert made.headers["Location"] == f"{tenant.path}/invitations/{open_one['id']}"

    zoe = rest_app.user("zoe@example.com")
    assert zoe.get(tenant.path).status_code == 404
    status, joined = accept(zoe, token)
    assert (status, joined["id"], joined["role"]) == (201, tenant.id, "admin")
    assert accept(zoe, token) == (status, joined), "repeated, it is answered the same"
    assert zoe.get(tenant.path).json()["role"] == "admin"
    assert open_one["id"] not in str(tenant.owner.get(f"{tenant.path}/invitations").json())
    (member,) = [
        each for each in tenant.owner.get(f"{tenant.path}/members").json()["items"] if each["user_id"] == "zoe@example.com"
    ]
    assert (member["role"], member["address"], member["tenant_id"]) == ("admin", "zoe@example.com", tenant.id)


def test_revoked_and_foreign_invitations_are_refused(rest_app: RestApp, tenant: Tenant) -> None:
    invitation = tenant.invite("yan@example.com")
    status, problem = accept(rest_app.user("mallory@example.com"), invitation["token"])
    assert (status, problem["code"]) == (403, "address_unproven")
    assert tenant.owner.delete(f"{tenant.path}/invitations/{invitation['id']}").status_code == 204
    status, problem = accept(rest_app.user("yan@example.com"), invitation["token"])
    assert (status, problem["code"]) == (403, "invitation_refused")
    assert tenant.owner.delete(f"{tenant.path}/invitations/{invitation['id']}").status_code == 404


def test_id_token_must_be_the_callers_own(rest_app: RestApp, tenant: Tenant) -> None:
    invitation = tenant.invite("xia@example.com")
    xia = rest_app.user("xia@example.com")
    assert xia.token is not None
    for id_token in (str(rest_app.user("mallory@example.com").token), "x", str(tenant.owner.token)):
        status, problem = accept(xia, invitation["token"], id_token=id_token)
        assert (status, problem["code"]) == (403, "address_unproven")
    status, problem = accept(rest_app.user("mallory@example.com"), invitation["token"], id_token=xia.token)
    assert (status, problem["code"]) == (403, "address_unproven")
    assert accept(xia, invitation["token"], id_token=xia.token)[0] == 201


def test_agent_cannot_accept_an_invitation(tenant: Tenant) -> None:
    status, problem = accept(tenant.agent().login(), tenant.invite("wim@example.com")["token"])
    assert (status, problem["code"]) == (403, "forbidden")


def test_members_role_changes_and_removal_apply_at_the_next_request(tenant: Tenant) -> None:
    member = tenant.member(Role.VIEWER)
    path = f"{tenant.path}/members/{me(member)}"
    assert member.post(f"{tenant.path}/channels", json={"name": "News"}).status_code == 403
    changed = tenant.owner.patch(path, json={"role": "member"})
    assert (changed.status_code, changed.json()["role"]) == (200, "member")
    assert member.post(f"{tenant.path}/channels", json={"name": "News"}).status_code == 201
    assert tenant.owner.delete(path).status_code == 204
    assert member.get(tenant.path).status_code == 404
    assert member.get("/v1/me").json()["tenants"] == []


def test_members_can_leave_except_the_last_owner(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    viewer = tenant.member(Role.VIEWER)
    assert viewer.delete(f"{tenant.path}/members/{me(viewer)}").status_code == 204
    own = f"{tenant.path}/members/{me(tenant.owner)}"
    for answer in (tenant.owner.delete(own), tenant.owner.patch(own, json={"role": "admin"})):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    second = tenant.member(Role.OWNER)
    assert tenant.owner.delete(own).status_code == 204
    assert second.get(tenant.path).json()["role"] == "owner"


def test_pages_list_each_member_once(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    users = {me(tenant.owner), *(me(tenant.member(Role.MEMBER)) for _ in range(6))}
    found: list[str] = []
    cursor = None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = tenant.owner.get(f"{tenant.path}/members", params=query).json()
        found += [each["user_id"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert (len(found), set(found)) == (7, users)


def test_repeated_request_with_idempotency_key_creates_one_invitation(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "invite-1"}
    body = {"address": "vic@example.com", "role": "viewer"}
    first, again = (tenant.owner.post(f"{tenant.path}/members", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    other = tenant.owner.post(f"{tenant.path}/members", json={**body, "role": "admin"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")

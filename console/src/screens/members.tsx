/** The people of the tenant, their roles, and open invitations. */

import { useState } from "preact/hooks";

import type { Invitation, Member, NewInvitation, Role } from "../../../clients/typescript/src/generated/rest.js";
import { client, me, readMe, role, tenantId } from "../session.js";
import {
	Badge, Button, Card, type Column, Confirm, Dialog, Field, FormDialog, List, Name, PageHead, type Pages, Problem, Select, Snippet, Time, useAction,
	usePages,
} from "../ui/index.js";

const ROLES: readonly (readonly [Role, string])[] = [
	["viewer", "viewer: reads"],
	["member", "member: works with agents and channels"],
	["admin", "admin: also people, usage and audit"],
	["owner", "owner: everything"],
];

function grantable(): typeof ROLES {
	return role.value === "owner" ? ROLES : ROLES.filter(([each]) => each !== "owner");
}

export function MembersScreen() {
	const [isInviting, setInviting] = useState(false);
	const members = usePages((cursor) => client.listMembers(tenantId(), { cursor, limit: 200 }), [tenantId()]);
	const invitations = usePages((cursor) => client.listInvitations(tenantId(), { cursor, limit: 200 }), [tenantId()]);
	return (
		<>
			<PageHead title="Members" note="People sign in with your identity provider. Their role here decides what they may do.">
				<Button kind="primary" onClick={() => setInviting(true)}>
					Invite
				</Button>
			</PageHead>
			<Members members={members} />
			<Card title="Open invitations">
				<Invitations invitations={invitations} />
			</Card>
			{isInviting && <Invite onInvited={invitations.reload} onClose={() => setInviting(false)} />}
		</>
	);
}

function Members({ members }: { members: Pages<Member> }) {
	const [changing, setChanging] = useState<Member | null>(null);
	const [removing, setRemoving] = useState<Member | null>(null);
	const columns: readonly Column<Member>[] = [
		{
			title: "Person",
			cell: (member) => (
				<>
					<Name>{member.user_id}</Name> {member.user_id === me.value?.user_id && <Badge tone="accent">you</Badge>}
				</>
			),
		},
		{ title: "Address", minor: true, cell: (member) => <bdi>{member.address ?? "–"}</bdi> },
		{ title: "Role", cell: (member) => <Badge>{member.role}</Badge> },
		{ title: "Since", minor: true, cell: (member) => <Time at={member.joined_at} /> },
		{
			title: "Actions",
			align: "end",
			cell: (member) => (
				<span class="row-actions">
					<Button kind="quiet" label={`Change the role of ${member.user_id}`} onClick={() => setChanging(member)}>
						Role
					</Button>
					<Button kind="quiet" label={`Remove ${member.user_id}`} onClick={() => setRemoving(member)}>
						Remove
					</Button>
				</span>
			),
		},
	];
	return (
		<>
			<List label="Members" pages={members} columns={columns} rowKey={(member) => member.user_id} empty="No member" />
			{changing !== null && <ChangeRole member={changing} onChanged={members.reload} onClose={() => setChanging(null)} />}
			{removing !== null && (
				<Confirm
					title="Remove this member?"
					action="Remove"
					act={async () => {
						await client.removeMember(tenantId(), removing.user_id);
						if (removing.user_id === me.value?.user_id) await readMe();
						else members.reload();
					}}
					onClose={() => setRemoving(null)}
				>
					<p>
						<Name>{removing.user_id}</Name> loses access within 5 seconds. What they made stays.
					</p>
				</Confirm>
			)}
		</>
	);
}

interface ChangeRoleProps {
	member: Member;
	onChanged: () => void;
	onClose: () => void;
}

function ChangeRole({ member, onChanged, onClose }: ChangeRoleProps) {
	const [chosen, setChosen] = useState<Role>(member.role);
	const save = async () => {
		await client.changeMember(tenantId(), member.user_id, { role: chosen });
		if (member.user_id === me.value?.user_id) await readMe();
		onChanged();
	};
	return (
		<FormDialog title="Change the role" action="Save" act={save} onClose={onClose}>
			<p>
				<Name>{member.user_id}</Name>
			</p>
			<Select label="Role" value={chosen} options={grantable()} onChange={setChosen} />
		</FormDialog>
	);
}

function Invite({ onInvited, onClose }: { onInvited: () => void; onClose: () => void }) {
	const [address, setAddress] = useState("");
	const [chosen, setChosen] = useState<Role>("member");
	const [made, setMade] = useState<NewInvitation | null>(null);
	const invite = async () => {
		setMade(await client.inviteMember(tenantId(), { address: address.trim(), role: chosen }));
		onInvited();
		return false; // The dialog shows the token.
	};
	if (made !== null) {
		return (
			<Dialog title="Invitation made" onClose={onClose}>
				<p>
					ArtCafe sends no mail. Pass this token on to <Name>{made.address}</Name>; it is shown only now. They paste it under “Accept an invitation”.
				</p>
				<Snippet label="the token" text={made.token} />
				<p class="note">
					It ends <Time at={made.expires_at} />.
				</p>
			</Dialog>
		);
	}
	return (
		<FormDialog title="Invite somebody" action="Invite" act={invite} onClose={onClose}>
			<Field label="E-mail address" type="email" value={address} onInput={setAddress} required hint="They must prove it when they accept." />
			<Select label="Role" value={chosen} options={grantable()} onChange={setChosen} />
		</FormDialog>
	);
}

function Invitations({ invitations }: { invitations: Pages<Invitation> }) {
	const { error, run } = useAction();
	const revoke = (id: string) =>
		run(async () => {
			await client.revokeInvitation(tenantId(), id);
			invitations.reload();
		});
	const columns: readonly Column<Invitation>[] = [
		{ title: "Address", cell: (each) => <Name>{each.address}</Name> },
		{ title: "Role", cell: (each) => <Badge>{each.role}</Badge> },
		{ title: "Invited by", minor: true, cell: (each) => <Name>{each.invited_by}</Name> },
		{ title: "Ends", cell: (each) => <Time at={each.expires_at} relative /> },
		{
			title: "Actions",
			align: "end",
			cell: (each) => (
				<Button kind="quiet" label={`Revoke the invitation of ${each.address}`} onClick={() => void revoke(each.id)}>
					Revoke
				</Button>
			),
		},
	];
	return (
		<>
			<Problem error={error} />
			<List label="Open invitations" pages={invitations} columns={columns} rowKey={(each) => each.id} empty="No open invitation" />
		</>
	);
}

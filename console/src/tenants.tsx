/** Choosing an organisation, creating one, and joining one with an invitation. */

import { useState } from "preact/hooks";

import { FIRST } from "./screens.js";
import { go, link } from "./router.js";
import { client, idToken, me, readMe } from "./session.js";
import { Badge, Button, Card, Empty, Field, Form, Name, PageHead, Problem, useAction } from "./ui/index.js";

export function TenantsPage() {
	const tenants = me.value?.tenants ?? [];
	return (
		<>
			<PageHead title="Organisations" note="Agents, channels and people of one organisation never see those of another." />
			{tenants.length === 0 && <Empty title="You belong to no organisation yet">Create one, or accept an invitation.</Empty>}
			<ul class="choices">
				{tenants.map((each) => (
					<li key={each.tenant_id}>
						<a href={link("t", each.tenant_id, FIRST)}>
							<Name>{each.name}</Name> <Badge>{each.role}</Badge>
						</a>
					</li>
				))}
			</ul>
			<div class="columns">
				<NewTenant />
				<Invitation />
			</div>
		</>
	);
}

function NewTenant() {
	const [name, setName] = useState("");
	const { error, isBusy, run } = useAction();
	const create = () =>
		run(async () => {
			const { id } = await client.createTenant({ name });
			await readMe();
			go(link("t", id, FIRST));
		});
	return (
		<Card title="New organisation">
			<Form label="New organisation" onSubmit={create}>
				<Field label="Name" value={name} onInput={setName} required maxLength={64} hint="You become its owner." />
				<Problem error={error} />
				<Button type="submit" kind="primary" busy={isBusy}>
					Create
				</Button>
			</Form>
		</Card>
	);
}

function Invitation() {
	const [token, setToken] = useState("");
	const { error, isBusy, run } = useAction();
	const accept = () =>
		run(async () => {
			const proof = idToken();
			const { id } = await client.acceptInvitation({ token: token.trim(), ...(proof === null ? {} : { id_token: proof }) });
			await readMe();
			go(link("t", id, FIRST));
		});
	return (
		<Card title="Accept an invitation">
			<Form label="Accept an invitation" onSubmit={accept}>
				<Field label="The invitation's token" value={token} onInput={setToken} code required hint="The member who invited you has it." />
				<Problem error={error} />
				<Button type="submit" busy={isBusy}>
					Join
				</Button>
			</Form>
		</Card>
	);
}

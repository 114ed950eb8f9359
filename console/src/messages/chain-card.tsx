/** The state of a chain of answers, and its release after the loop guard has stopped it. */

import type { Chain } from "../../../clients/typescript/src/generated/rest.js";
import { canWrite, client, tenantId } from "../session.js";
import { Badge, Button, Card, Code, Copy, Count, Fact, Facts, Problem, useAction } from "../ui/index.js";

export function ChainCard({ chain, onChanged }: { chain: Chain; onChanged: (chain: Chain) => void }) {
	const { error, isBusy, run } = useAction();
	const isStopped = chain.status === "stopped";
	const release = () => run(async () => onChanged(await client.changeChain(tenantId(), chain.id, { status: "active" })));
	return (
		<Card>
			<Facts>
				<Fact name="Loop guard">{isStopped ? <Badge tone="bad">stopped</Badge> : <Badge tone="good">active</Badge>}</Fact>
				<Fact name="Messages">
					<Count of={chain.messages} /> of <Count of={chain.max_messages} />
				</Fact>
				<Fact name="Answers one after another">
					at most <Count of={chain.max_hops} />
				</Fact>
				<Fact name="Released">
					<Count of={chain.releases} />×
				</Fact>
				<Fact name="Id">
					<Code>{chain.id}</Code> <Copy text={chain.id} label="Copy the id" />
				</Fact>
			</Facts>
			{isStopped && (
				<p class="note">A message above a limit was refused, and so is every further one. A release allows the chain its limits once more.</p>
			)}
			<Problem error={error} />
			{isStopped && canWrite.value && (
				<div class="buttons">
					<Button busy={isBusy} onClick={() => void release()}>
						Release the chain
					</Button>
				</div>
			)}
		</Card>
	);
}

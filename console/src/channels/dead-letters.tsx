/** The dead letters of a queue: why each is one, and sending them back. */

import { useRef, useState } from "preact/hooks";

import type { LetterStatus } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { type ChannelMessage, messagesOf } from "../messages/message.js";
import { MessageTable } from "../messages/message-table.js";
import { entryOf } from "../messages/timeline.js";
import { canWrite, client, tenantId } from "../session.js";
import { Badge, Button, type Column, Count, Listed, Problem, Time, useAction, usePages } from "../ui/index.js";
import { redriveAll, summaryOf, wordOf } from "./redrive.js";

const RELOAD_MS = 5_000;
const PAGE = 200;

interface DeadLettersProps {
	/** The dead-letter channel. */
	letters: string;
	/** The queue, or the channel whose letters these are. */
	queue: string;
}

export function DeadLetters({ letters, queue }: DeadLettersProps) {
	const list = usePages(
		async (cursor) => {
			const page = await client.readHistory(tenantId(), letters, { limit: PAGE, cursor });
			return { items: messagesOf(page.items).map(entryOf), next_cursor: page.next_cursor };
		},
		[letters],
	);
	const [sentBack, setSentBack] = useState<ReadonlyMap<number, LetterStatus>>(new Map());
	const { error, isBusy, run } = useAction();
	useEvery(RELOAD_MS, list.reload, !isBusy && list.items.length <= PAGE && !list.hasMore);
	const redriveOne = (seq: number) =>
		run(async () => {
			const answer = await client.redrive(tenantId(), letters, { seq });
			setSentBack(new Map([...sentBack, ...answer.items.map((each) => [each.seq, each.status] as const)]));
		});
	const more: Column<ChannelMessage>[] = [
		{ title: "Died", minor: true, cell: (each) => <Time at={each.dead_letter?.time} /> },
		{ title: "Deliveries", align: "end", minor: true, cell: (each) => <Count of={each.dead_letter?.deliveries} /> },
		{ title: "Seq in queue", align: "end", minor: true, cell: (each) => <Count of={each.dead_letter?.seq} /> },
		{ title: "", align: "end", cell: (each) => <LetterAction letter={each} status={sentBack.get(each.seq ?? 0)} isBusy={isBusy} onRedrive={(seq) => void redriveOne(seq)} /> },
	];
	return (
		<>
			{canWrite.value && list.items.length > 0 && <RedriveAll letters={letters} queue={queue} onLetters={(found) => setSentBack(new Map([...sentBack, ...found]))} />}
			<Problem error={error} />
			<Listed pages={list} empty="No dead letter" note="Messages come here after their last delivery, a rejection, or their expiry.">
				<MessageTable label="Dead letters, newest first" entries={list.items} onEnd={list.loadMore} more={more} />
			</Listed>
		</>
	);
}

interface LetterActionProps {
	letter: ChannelMessage;
	status: LetterStatus | undefined;
	isBusy: boolean;
	onRedrive: (seq: number) => void;
}

function LetterAction({ letter, status, isBusy, onRedrive }: LetterActionProps) {
	if (status !== undefined) return <Badge tone={status === "failed" ? "bad" : "good"}>{wordOf(status)}</Badge>;
	const seq = letter.seq;
	if (!canWrite.value || seq === null) return null;
	return (
		<Button kind="quiet" disabled={isBusy} onClick={() => onRedrive(seq)} label={`Send back ${seq}`}>
			Send back
		</Button>
	);
}

interface RedriveAllProps extends DeadLettersProps {
	onLetters: (letters: ReadonlyMap<number, LetterStatus>) => void;
}

function RedriveAll({ letters, onLetters }: RedriveAllProps) {
	const { error, isBusy, run } = useAction();
	const [summary, setSummary] = useState("");
	const isStopped = useRef(false);
	const start = (isUntilFailure: boolean) => {
		if (isBusy) return;
		isStopped.current = false;
		setSummary("");
		void run(async () => {
			for await (const progress of redriveAll((body) => client.redrive(tenantId(), letters, body), isUntilFailure)) {
				onLetters(progress.letters);
				setSummary(summaryOf(progress));
				if (isStopped.current) return;
			}
		});
	};
	return (
		<>
			<div class="buttons">
				<Button busy={isBusy} onClick={() => start(false)}>
					Send all back
				</Button>
				<Button busy={isBusy} onClick={() => start(true)}>
					Until the first failure
				</Button>
				{isBusy && <Button onClick={() => (isStopped.current = true)}>Stop</Button>}
			</div>
			<p role="status" class="faint">
				{summary}
			</p>
			<Problem error={error} />
		</>
	);
}

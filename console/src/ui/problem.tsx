/** An error of the server, with its code and what to do. */

import { ArtcafeError } from "../../../clients/typescript/src/errors.js";
import { Button } from "./basic.js";

const GONE = "Check its handle. Somebody may have deleted it a moment ago.";

/** What a person of the console can do about an error, beyond what its own text says. */
const REMEDIES: Readonly<Record<string, string>> = {
	forbidden: "Ask an owner or admin of this organisation for another role.",
	unauthenticated: "Sign in again.",
	credentials_expired: "Sign in again.",
	membership_ended: "You were removed from this organisation.",
	tenant_not_found: "It was deleted, or you do not belong to it.",
	agent_not_found: GONE,
	channel_not_found: GONE,
	limit_reached: "Remove something that is not needed, or choose a larger plan.",
	outcome_unknown: "Look whether it was done, and repeat it if not.",
};

/** Return an error to show for anything that was thrown. */
export function problemOf(error: unknown): ArtcafeError {
	if (error instanceof ArtcafeError) return error;
	return new ArtcafeError("internal", error instanceof Error ? error.message : String(error));
}

interface ProblemProps {
	error: ArtcafeError | null;
	/** Offer to repeat what failed. */
	onRetry?: () => void;
}

/** An alert with the error; nothing for null. */
export function Problem({ error, onRetry }: ProblemProps) {
	if (error === null) return null;
	const remedy = REMEDIES[error.code];
	return (
		<div class="problem" role="alert">
			<p>
				<strong>{sentence(error.message)}</strong>
			</p>
			<p class="what">
				<code>{error.code}</code>
				{remedy !== undefined && <span>{remedy}</span>}
				{onRetry !== undefined && <Button onClick={onRetry}>Try again</Button>}
			</p>
		</div>
	);
}

/** Errors are clauses. An address at the beginning keeps its case. */
function sentence(text: string): string {
	const first = /^[a-z]+ /.test(text) ? text.slice(0, 1).toUpperCase() : text.slice(0, 1);
	return `${first}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

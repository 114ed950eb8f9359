/** Checks of a login challenge before it is signed. */

import { ArtcafeError } from "./errors.js";

const CHALLENGE =
	/^artcafe login 1 service=(?<service>\S+) tenant=(?<tenant>\S+) agent=(?<agent>\S+) challenge=(?<challenge>\S+) nonce=[0-9a-f]{64} expires=\S+$/;

/** What the challenge must name. */
export interface Expected {
	tenant: string;
	agent: string;
	challenge: string;
	/** The only service to sign for; undefined before the first login if none was given. */
	service?: string | undefined;
}

/**
 * Return the service of a challenge. Throws `challenge_refused` for a text that is not a login of this agent at this service: a
 * signature is valid for the service in the text, whoever passed the challenge on.
 */
export function checkChallenge(text: string, expected: Expected): string {
	const groups = CHALLENGE.exec(text)?.groups;
	if (groups === undefined) throw refused("it does not have the form of an ArtCafe login");
	for (const name of ["tenant", "agent", "challenge", "service"] as const) {
		const found = decoded(groups[name] ?? "");
		const wanted = expected[name];
		if (wanted !== undefined && found !== wanted) throw refused(`it names the ${name} '${found}', not '${wanted}'`);
	}
	return decoded(groups["service"] ?? "");
}

/** The text has ids percent-encoded. */
function decoded(text: string): string {
	try {
		return decodeURIComponent(text);
	} catch {
		throw refused(`'${text}' is not percent-encoded UTF-8`);
	}
}

function refused(problem: string): ArtcafeError {
	return new ArtcafeError("challenge_refused", `the challenge was not signed: ${problem}`);
}

/** The sign-in with the local identity: a one-use code of `artcafe console`, exchanged for a token. */

import { Client } from "../../clients/typescript/src/client.js";
import type { Credentials } from "./credentials.js";
import { restoreAddress } from "./router.js";

/** Return the code in the page's address, and remove it there. Null if it has none. */
export function takeCode(): string | null {
	const found = /^#code=([\w-]+)$/.exec(window.location.hash)?.[1] ?? null;
	if (found !== null) restoreAddress();
	return found;
}

/** Exchange a code for the person's token. Throws `bad_code` for one that was used or is older than 60 s. */
export async function redeemCode(code: string): Promise<Credentials> {
	const { access_token, expires_in } = await new Client({ url: window.location.origin }).redeemConsoleCode({ code: code.trim() });
	return { accessToken: access_token, expiresAt: Date.now() + expires_in * 1000, idToken: null, renew: null };
}

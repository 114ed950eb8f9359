/** Server addresses: validation and completion. */

import { invalid } from "./errors.js";

const GATEWAY_PATH = "/v1/connect";

/** Return whether the address is a gateway's (ws, wss) and not that of REST (http, https). Throws `invalid`. */
export function isGateway(url: string): boolean {
	return parse(url).protocol.startsWith("ws");
}

/** Return the REST address without a trailing slash or `/v1`. Throws `invalid`. */
export function restAddress(url: string): string {
	if (isGateway(url)) throw invalid("url", `must be the REST address (http:// or https://), not '${url}'`);
	return url.replace(/\/+$/, "").replace(/\/v1$/, "");
}

/** Return the gateway's address, with the default path if it has none. Throws `invalid`. */
export function gatewayAddress(url: string): string {
	const parsed = parse(url);
	if (!isGateway(url)) throw invalid("url", `a gateway's address must begin with ws:// or wss://, not '${url}'`);
	if (parsed.pathname === "/") parsed.pathname = GATEWAY_PATH;
	return parsed.href;
}

/** Return whether connections to the address are unencrypted, and leave this machine. */
export function isExposed(url: string): boolean {
	const { protocol, hostname } = parse(url);
	const isLoopback = hostname === "localhost" || hostname === "[::1]" || /^127\./.test(hostname);
	return isPlain(protocol) && !isLoopback;
}

/** Return whether a REST address with TLS named a gateway without. */
export function isDowngrade(rest: string, gateway: string): boolean {
	return !isPlain(parse(rest).protocol) && isPlain(parse(gateway).protocol);
}

function isPlain(protocol: string): boolean {
	return protocol === "http:" || protocol === "ws:";
}

function parse(url: string): URL {
	let parsed: URL;
	try {
		parsed = new URL(url);
	} catch {
		throw invalid("url", `'${url}' is not an address`);
	}
	if (!["http:", "https:", "ws:", "wss:"].includes(parsed.protocol) || parsed.hostname === "") {
		throw invalid("url", `must be like http://127.0.0.1:8080 or ws://127.0.0.1:8081${GATEWAY_PATH}, not '${url}'`);
	}
	if (parsed.username !== "" || parsed.search !== "" || parsed.hash !== "") throw invalid("url", "must have no user, password, '?' or '#'");
	return parsed;
}

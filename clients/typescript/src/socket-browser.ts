/** The WebSocket of browsers, and of other runtimes that have the global one. */

import { unavailable } from "./errors.js";
import type { Socket, SocketHandlers } from "./socket.js";

export const canPause = false;

/** Open a connection. Rejects with `unavailable`: a browser does not say why a connection failed. */
export function openSocket(url: string, protocol: string, timeoutMs: number, handlers: SocketHandlers): Promise<Socket> {
	return new Promise((resolve, reject) => {
		const socket = new WebSocket(url, [protocol]);
		const fail = (): void => {
			clearTimeout(timer);
			socket.onopen = socket.onclose = socket.onerror = null;
			socket.close();
			reject(unavailable(`${url} (no connection; does its ARTCAFE_ALLOWED_ORIGINS name this page's origin?)`));
		};
		const timer = setTimeout(fail, timeoutMs);
		socket.onerror = fail;
		socket.onclose = fail;
		socket.onopen = () => {
			clearTimeout(timer);
			socket.onerror = null;
			socket.onclose = (event) => handlers.onClose(event.code === 1005 ? 1006 : event.code, event.reason);
			socket.onmessage = (event) => {
				if (typeof event.data === "string") handlers.onText(event.data);
				else socket.close(4499, "binary frame");
			};
			resolve({
				send: (text) => {
					if (socket.readyState === WebSocket.OPEN) socket.send(text);
				},
				// A page may close with 1000 and 3000 to 4999 only (WHATWG WebSockets, close()).
				close: (code, reason) => socket.close(code === 1000 ? 1000 : 4499, reason),
				pause: () => {},
				resume: () => {},
				watch: () => {},
			});
		};
	});
}

/** A WebSocket as the connection needs it. `#socket` in package.json selects the implementation for Node.js or for browsers. */

/** The events of a socket. After `onClose` there are none. */
export interface SocketHandlers {
	onText(text: string): void;
	/** The code is 1006 if the connection broke without a close frame. */
	onClose(code: number, reason: string): void;
}

export interface Socket {
	send(text: string): void;
	/** Send a close frame and wait for the peer's. `onClose` follows. */
	close(code: number, reason: string): void;
	/** Stop reading, so that the server waits. A browser cannot: `Agent` uses a window there. */
	pause(): void;
	resume(): void;
	/** End the connection if nothing arrives for `silenceMs`. Browsers do not show the server's pings, so they ignore it. */
	watch(silenceMs: number): void;
}

/** The longest message that a client accepts: sixteen times the longest published frame. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** What was pasted as a public key, judged before anything is sent. */

/** The largest file that is read; a .pub file has less than 1 KiB. */
export const MAX_BYTES = 16 * 1024;
const PUBLIC = /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/=]+( .*)?$/;

export const IS_PRIVATE =
	"This is a private key. It was not sent, and it must never leave the agent's machine: paste the file that ends in .pub. If you pasted it elsewhere too, make a new key.";

/** Return whether the text has a private key, whole or in part, in the formats of OpenSSH, PEM and PuTTY. */
export function isPrivateKey(text: string): boolean {
	return /PRIVATE KEY|PuTTY-User-Key-File|Private-Lines|Private-MAC|b3BlbnNzaC1rZXktdjE/i.test(text);
}

/** Return what is wrong with a public key; null if nothing is visible here. The server decides. */
export function keyProblem(text: string): string | null {
	const line = text.trim();
	if (line === "") return null;
	if (isPrivateKey(line)) return IS_PRIVATE;
	if (line.includes("\n")) return "One public key only: the line of one .pub file.";
	if (!PUBLIC.test(line)) return "Not a public SSH key: it begins with ssh-ed25519, ssh-rsa, ecdsa-sha2-… or sk-….";
	return null;
}

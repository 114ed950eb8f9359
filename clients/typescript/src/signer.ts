/** An object that can sign with an agent's private key. `artcafe/node` has signers for key files and for ssh-agent. */
export interface Signer {
	/** The public key line to register: type and base64, without a comment. */
	readonly publicKey: string;
	/** Return an armored SSHSIG of the challenge's UTF-8 text under the namespace `artcafe`. */
	sign(challenge: string): Promise<string>;
}

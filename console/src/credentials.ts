/** What a sign-in gives: by a code, or at the identity provider. */

/** A token, and how a new one is obtained without the person. */
export interface Credentials {
	accessToken: string;
	/** The end of the token, by `Date.now()`, which goes on while the computer sleeps. */
	expiresAt: number;
	/** Proves the e-mail address of an invitation; the local identity's access token does so itself. */
	idToken: string | null;
	renew: (() => Promise<Credentials>) | null;
	/** The renewal in progress, shared by all calls: an issuer may take a refresh token that is used twice for a stolen one. */
	renewal?: Promise<Credentials | null>;
}

/** The pages before a tenant: signing in, signing in again, and the terms. */

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";

import type { ArtcafeError } from "../../clients/typescript/src/errors.js";
import { redeemCode } from "./code-login.js";
import { signInElsewhere, startSignIn } from "./oidc.js";
import { client, home, me, readMe, signIn, signOut } from "./session.js";
import { Button, Dialog, Field, Form, Loading, Name, Problem, Snippet, useAction, useLoad } from "./ui/index.js";

/** Why the last sign-in failed. */
export const signInProblem = signal<ArtcafeError | null>(null);

/** The page of somebody who is not signed in. */
export function SignInPage() {
	const issuer = home.value?.issuer ?? null;
	return (
		<main class="gate">
			<h1>ArtCafe</h1>
			{issuer === null ? <CodeSignIn /> : <IssuerSignIn issuer={issuer} />}
		</main>
	);
}

function IssuerSignIn({ issuer }: { issuer: string }) {
	const { error, isBusy, run } = useAction();
	const begin = () =>
		run(async () => {
			signInProblem.value = null;
			if (home.value !== null) await startSignIn(home.value);
		});
	return (
		<>
			<p>Your identity provider signs you in: {issuer}</p>
			<Problem error={error ?? signInProblem.value} />
			<Button kind="primary" busy={isBusy} onClick={begin}>
				Sign in
			</Button>
		</>
	);
}

function CodeSignIn() {
	const [code, setCode] = useState("");
	const { error, isBusy, run } = useAction();
	const redeem = () =>
		run(async () => {
			signInProblem.value = null;
			await signIn(await redeemCode(codeIn(code)));
		});
	const user = me.value?.user_id; // Another person would lose what was typed in this page.
	return (
		<>
			<p>On the machine that runs ArtCafe, this command {user === undefined ? "opens the console and signs you in" : "prints a code for you"}:</p>
			<Snippet label="the command" text={`artcafe console${user === undefined ? "" : ` --no-open --user ${user}`}`} />
			<Form label="Sign in" onSubmit={redeem}>
				<Field
					label={`${user === undefined ? "Or p" : "P"}aste the code that it printed`}
					value={code}
					onInput={setCode}
					code
					required
					hint="The code, or the whole address. It works once, for 60 seconds."
				/>
				<Problem error={error ?? signInProblem.value} />
				<Button type="submit" kind="primary" busy={isBusy}>
					Sign in
				</Button>
			</Form>
		</>
	);
}

/** Return the code in a pasted address, or the text itself. */
function codeIn(text: string): string {
	return /#code=([\w-]+)/.exec(text)?.[1] ?? text;
}

/** The dialog above a page whose token has expired: the page and what was typed in it are kept. */
export function SignInAgain() {
	const issuer = home.value?.issuer ?? null;
	return (
		<Dialog title="Sign in again">
			<p>Your sign-in has expired. This page stays as it is: your input is kept, and requests wait.</p>
			{issuer === null ? <CodeSignIn /> : <SignInElsewhere />}
			<div class="buttons">
				<Button onClick={signOut}>Sign out</Button>
			</div>
		</Dialog>
	);
}

function SignInElsewhere() {
	const { error, isBusy, run } = useAction();
	const begin = () => run(async () => signIn(await signInElsewhere()));
	return (
		<>
			<Problem error={error} />
			<Button kind="primary" busy={isBusy} onClick={begin}>
				Open the sign-in window
			</Button>
		</>
	);
}

/** The terms, which are accepted before anything else. */
export function TermsPage() {
	const terms = useLoad(() => client.readTerms(), []);
	const { error, isBusy, run } = useAction();
	const accept = () =>
		run(async () => {
			await client.acceptTerms({ version: terms.value?.version ?? null });
			await readMe();
		});
	return (
		<main class="gate wide">
			<h1>Terms of service</h1>
			<p>
				You are signed in as <Name>{me.value?.user_id ?? ""}</Name>. Accept version {me.value?.terms_outstanding?.version} to continue.
			</p>
			{terms.isLoading && <Loading />}
			<Problem error={terms.error ?? error} onRetry={terms.error === null ? undefined : terms.reload} />
			{terms.value !== null && (
				<pre class="terms" tabIndex={0} aria-label="Terms of service" dir="auto">
					{terms.value.text ?? "The operator publishes the text elsewhere. Ask them for it."}
				</pre>
			)}
			<div class="buttons">
				<Button kind="primary" busy={isBusy} disabled={terms.value === null} onClick={accept}>
					Accept
				</Button>
				<Button onClick={signOut}>Sign out</Button>
			</div>
		</main>
	);
}

/** The console's page: sign in, accept the terms, choose a tenant, and show its screens. */

import "./style.css";
import "./screens.css";

import { render } from "preact";

import { Client } from "../../clients/typescript/src/client.js";
import { redeemCode, takeCode } from "./code-login.js";
import { keepFocus } from "./focus.js";
import { connectTo } from "./live.js";
import { finishSignIn, isForAnother, isReturn, startSignIn } from "./oidc.js";
import { go, link, location } from "./router.js";
import { FIRST } from "./screens.js";
import { home, me, onTenant, signIn, state } from "./session.js";
import { Page } from "./shell.js";
import { signInProblem } from "./sign-in.js";
import { problemOf } from "./ui/index.js";

async function start(): Promise<void> {
	const code = takeCode();
	try {
		home.value = await new Client({ url: window.location.origin }).readHome();
		if (code !== null) await signIn(await redeemCode(code));
		else if (isReturn()) await signIn(await finishSignIn(home.value));
		else if (home.value.issuer !== null) await startSignIn(home.value);
	} catch (error) {
		signInProblem.value = problemOf(error);
	}
	goToOnlyTenant();
	const isLeaving = home.value?.issuer != null && signInProblem.value === null; // The browser goes to the issuer's page.
	if (state.value === "starting" && !isLeaving) state.value = "signed_out";
}

/** Somebody with one organisation has nothing to choose. */
function goToOnlyTenant(): void {
	const [first, ...others] = me.value?.tenants ?? [];
	if (first !== undefined && others.length === 0 && location.value.segments.length === 0) go(link("t", first.tenant_id, FIRST), { replace: true });
}

/** Sign in with a code that was pasted into the address of this page, which the browser does not load again then. */
async function takePastedCode(): Promise<void> {
	const code = takeCode();
	if (code === null) return;
	signInProblem.value = null;
	try {
		await signIn(await redeemCode(code));
		goToOnlyTenant();
	} catch (error) {
		signInProblem.value = problemOf(error);
	}
}

keepFocus();
window.addEventListener("hashchange", () => void takePastedCode());
onTenant(connectTo);
const root = document.getElementById("console");
if (root !== null) render(<Page />, root);
if (isForAnother()) document.title = "Sign in · ArtCafe";
void start();

/** The frame around every screen: the tenant, the menu, the connection's state, and the person. */

import { useEffect, useRef } from "preact/hooks";

import { connection, failure, reconnect } from "./live.js";
import { go, link, location, match, tenantInAddress, type Params } from "./router.js";
import { OperatorScreen } from "./screens/operator.js";
import { FIRST, type Screen, SCREENS } from "./screens.js";
import { isExpired, me, role, signOut, state, tenant } from "./session.js";
import { SignInAgain, SignInPage, TermsPage } from "./sign-in.js";
import { TenantsPage } from "./tenants.js";
import { theme, type Theme } from "./theme.js";
import { Badge, Button, Empty, Loading, Name } from "./ui/index.js";

/** The whole page. */
export function Page() {
	if (state.value === "starting") return <Loading />;
	if (state.value === "signed_out" || me.value === null) return <SignInPage />;
	return (
		<>
			{me.value.terms_outstanding !== null && me.value.terms_outstanding.grace_until === null ? <TermsPage /> : <SignedInPage />}
			{isExpired.value && <SignInAgain />}
		</>
	);
}

function SignedInPage() {
	return (
		<div class={tenant.value === null ? "shell" : "shell with-menu"}>
			<a class="skip" href="#main" onClick={skip}>
				Skip to the content
			</a>
			<Bar />
			{tenant.value !== null && <Menu />}
			<main id="main" tabIndex={-1}>
				<Failure />
				<Content />
				<footer class="faint">Times are in {ZONE}; a time's tooltip has UTC.</footer>
			</main>
		</div>
	);
}

const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

function skip(event: Event): void {
	event.preventDefault();
	document.getElementById("main")?.focus();
}

function Bar() {
	return (
		<header class="bar">
			<a class="brand" href={link()}>
				ArtCafe
			</a>
			{tenant.value !== null && (
				<a class="tenant" href={link()} title="Choose another organisation">
					<Name>{tenant.value.name}</Name> <Badge>{tenant.value.role}</Badge>
				</a>
			)}
			<span class="spring" />
			{me.value?.is_operator === true && (
				<a href={link(OPERATOR)} aria-current={isOperatorPage() ? "page" : undefined}>
					Platform
				</a>
			)}
			{tenant.value !== null && <Connection />}
			<ThemeSwitch />
			<span class="person">
				<Name>{me.value?.user_id ?? ""}</Name>
			</span>
			<Button kind="quiet" onClick={leave}>
				Sign out
			</Button>
		</header>
	);
}

/** Sign out, and leave nothing for the back button. */
function leave(): void {
	signOut();
	go(window.location.pathname, { replace: true });
}

const CONNECTION = {
	off: ["Offline", "bad"],
	connecting: ["Connecting", "warn"],
	connected: ["Live", "good"],
	lost: ["Reconnecting", "warn"],
} as const;

function Connection() {
	const [text, tone] = failure.value === null ? CONNECTION[connection.value] : CONNECTION.off;
	return (
		<span class={`live ${tone}`} role="status" title="The connection to the gateway, for what changes while you look">
			{text}
		</span>
	);
}

function Failure() {
	if (failure.value === null) return null;
	return (
		<div class="problem" role="alert">
			<p>
				<strong>This page no longer updates: {failure.value.message}</strong>
			</p>
			<p>
				<Button onClick={reconnect}>Try again</Button>
			</p>
		</div>
	);
}

const THEMES: readonly (readonly [Theme, string])[] = [["system", "System"], ["light", "Light"], ["dark", "Dark"]];

function ThemeSwitch() {
	return (
		<select aria-label="Colours" value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
			{THEMES.map(([value, text]) => (
				<option key={value} value={value}>
					{text}
				</option>
			))}
		</select>
	);
}

const OPERATOR = "operator";

function isOperatorPage(): boolean {
	return match(OPERATOR, location.value.segments) !== null;
}

function maySee(screen: Screen): boolean {
	return role.value !== null && screen.roles.includes(role.value);
}

function Menu() {
	const [, id = "", ...path] = location.value.segments;
	const items = (menu: Screen["menu"]) =>
		SCREENS.filter((screen) => screen.menu === menu && maySee(screen)).map((screen) => (
			<li key={screen.path}>
				<a href={link("t", id, ...screen.path.split("/"))} aria-current={path[0] === screen.path.split("/")[0] ? "page" : undefined}>
					{screen.title}
				</a>
			</li>
		));
	return (
		<nav class="menu" aria-label="Screens">
			<ul>{items("work")}</ul>
			<ul>{items("organisation")}</ul>
		</nav>
	);
}

/** Return the screen at the address, and the variable parts of its path. */
function screenAtAddress(): { screen: Screen; params: Params } | null {
	const path = location.value.segments.slice(2);
	for (const screen of SCREENS) {
		const params = match(screen.path, path);
		if (params !== null) return { screen, params };
	}
	return null;
}

function Content() {
	const { segments } = location.value;
	const at = segments.join("/");
	useTitleAndFocus(at);
	if (segments.length === 0) return <TenantsPage />;
	if (isOperatorPage()) return <OperatorScreen />;
	if (tenant.value === null) {
		return (
			<Empty title="There is no such organisation">
				<p>It was deleted, or you do not belong to it.</p>
				<a href={link()}>Choose an organisation</a>
			</Empty>
		);
	}
	const here = screenAtAddress();
	if (here === null) return <NoScreen />;
	if (!maySee(here.screen)) return <Empty title="Your role does not see this page">An owner or admin can give you another role.</Empty>;
	const Component = here.screen.component;
	return <Component key={at} params={here.params} />;
}

function NoScreen() {
	const id = tenantInAddress.value ?? "";
	return (
		<Empty title="There is no such page">
			<a href={link("t", id, FIRST)}>To the first page</a>
		</Empty>
	);
}

/** Name the page in the browser's title. When the address changes, move the focus to the page's head, or where it will be. */
function useTitleAndFocus(at: string): void {
	const isFirst = useRef(true);
	const here = screenAtAddress();
	useEffect(() => {
		document.title = `${isOperatorPage() ? "Platform" : here === null ? "Organisations" : here.screen.title} · ArtCafe`;
		if (!isFirst.current) (document.querySelector<HTMLElement>("main h1") ?? document.getElementById("main"))?.focus({ preventScroll: true });
		isFirst.current = false;
		window.scrollTo(0, 0);
	}, [at]);
}

/** Dark or light: as the system says, unless the person has chosen. The choice is all that the console stores. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const STORED = "artcafe-theme";
const stored = window.localStorage.getItem(STORED);

export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "system");

effect(() => {
	document.documentElement.dataset["theme"] = theme.value;
	if (theme.value === "system") window.localStorage.removeItem(STORED);
	else window.localStorage.setItem(STORED, theme.value);
});

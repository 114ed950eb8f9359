/** Tabs, by the keyboard pattern of WAI-ARIA: the arrow keys move between them. */

import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";

export interface Tab {
	name: string;
	content: () => ComponentChildren;
}

export function Tabs({ label, tabs }: { label: string; tabs: readonly Tab[] }) {
	const id = useId();
	const [chosen, setChosen] = useState(0);
	const onKey = (event: KeyboardEvent) => {
		const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
		if (step === 0) return;
		const next = (chosen + step + tabs.length) % tabs.length;
		setChosen(next);
		document.getElementById(`${id}-${next}`)?.focus();
	};
	return (
		<div class="tabs">
			<div role="tablist" aria-label={label} onKeyDown={onKey}>
				{tabs.map((tab, index) => (
					<button
						key={tab.name}
						id={`${id}-${index}`}
						type="button"
						role="tab"
						aria-selected={index === chosen}
						aria-controls={`${id}-panel`}
						tabIndex={index === chosen ? 0 : -1}
						onClick={() => setChosen(index)}
					>
						{tab.name}
					</button>
				))}
			</div>
			<div id={`${id}-panel`} role="tabpanel" aria-labelledby={`${id}-${chosen}`} tabIndex={0}>
				{tabs[chosen]?.content()}
			</div>
		</div>
	);
}

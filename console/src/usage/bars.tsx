/** A plot of counts over time: bars of SVG, one for each hour or day. */

import { useState } from "preact/hooks";

const WIDTH = 720;
const HEIGHT = 140;
/** The height of a bar of a small count, so that it is seen. */
const LEAST = 1.5;

interface BarsProps {
	/** What is plotted, for screen readers. */
	label: string;
	/** Beginnings of the hours or days, in seconds. */
	steps: readonly number[];
	/** Null: nothing was counted. */
	values: readonly (number | null)[];
	/** The text of a value. */
	format: (value: number) => string;
	/** The text of a beginning. */
	formatStep: (step: number) => string;
}

export function Bars({ label, steps, values, format, formatStep }: BarsProps) {
	const [chosen, setChosen] = useState<number | null>(null);
	const most = Math.max(1, ...values.map((each) => each ?? 0));
	const width = WIDTH / steps.length;
	const at = (event: PointerEvent) => {
		const box = (event.currentTarget as Element).getBoundingClientRect();
		setChosen(Math.min(steps.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * steps.length))));
	};
	const onKey = (event: KeyboardEvent) => {
		const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
		if (step === 0) return;
		event.preventDefault();
		setChosen(Math.min(steps.length - 1, Math.max(0, (chosen ?? (step > 0 ? -1 : steps.length)) + step)));
	};
	return (
		<div class="plot" tabIndex={0} role="group" aria-label={`${label}: the arrow keys read the values`} onKeyDown={onKey}>
			<svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true" onPointerMove={at} onPointerLeave={() => setChosen(null)}>
				{values.map((value, index) => {
					if (value === null) return <rect key={steps[index]} class="unknown" x={index * width} y={HEIGHT - 1} width={width * 0.8} height={1} />;
					const height = value === 0 ? 0 : Math.max(LEAST, (value / most) * (HEIGHT - 4));
					return <rect key={steps[index]} class={index === chosen ? "chosen" : ""} x={index * width} y={HEIGHT - height} width={width * 0.8} height={height} />;
				})}
			</svg>
			<p class="axis faint">
				<span>{formatStep(steps[0] ?? 0)}</span>
				<output>{chosen === null ? `highest: ${format(Math.max(0, ...values.map((each) => each ?? 0)))}` : describe(chosen)}</output>
				<span>{formatStep(steps.at(-1) ?? 0)}</span>
			</p>
		</div>
	);

	function describe(index: number): string {
		const value = values[index] ?? null;
		return `${formatStep(steps[index] ?? 0)}: ${value === null ? "not counted" : format(value)}`;
	}
}

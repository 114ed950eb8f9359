/** A table that renders only the rows in view, so that 10,000 rows scroll smoothly. */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/** The height of a row in pixels; style.css sets the same. */
const ROW = 44;
/** Rows above and below the view that are rendered too. */
const SPARE = 12;
/** Below this number every row is rendered. */
const SMALL = 120;

export interface Column<T> {
	/** Empty for a column of buttons. */
	title: string;
	cell: (row: T) => ComponentChildren;
	/** `end` aligns numbers at the right. */
	align?: "start" | "end";
	/** Columns that a narrow screen leaves out. */
	minor?: boolean;
}

interface TableProps<T> {
	/** What the table lists, for screen readers. */
	label: string;
	columns: readonly Column<T>[];
	rows: readonly T[];
	rowKey: (row: T) => string | number;
	/** Called when the last rows come into view: read the next page. */
	onEnd?: () => void;
}

export function Table<T>({ label, columns, rows, rowKey, onEnd }: TableProps<T>) {
	const body = useRef<HTMLTableSectionElement>(null);
	const [first, last] = useRange(body, rows.length);
	useEffect(() => {
		if (last >= rows.length - 1) onEnd?.();
	}, [last, rows.length, onEnd]);
	return (
		<div class="table" tabIndex={0} role="region" aria-label={label}>
			<table aria-rowcount={rows.length + 1}>
				<thead>
					<tr>
						{columns.map((column) => {
							const Head = column.title === "" ? "td" : "th";
							return (
								<Head key={column.title} class={classOf(column)}>
									{column.title}
								</Head>
							);
						})}
					</tr>
				</thead>
				<tbody ref={body}>
					<Space rows={first} />
					{rows.slice(first, last + 1).map((row, index) => (
						<tr key={rowKey(row)} aria-rowindex={first + index + 2}>
							{columns.map((column) => (
								<td key={column.title} class={classOf(column)}>
									{column.cell(row)}
								</td>
							))}
						</tr>
					))}
					<Space rows={rows.length - last - 1} />
				</tbody>
			</table>
		</div>
	);
}

function classOf<T>(column: Column<T>): string {
	return `${column.align ?? "start"}${column.minor === true ? " minor" : ""}`;
}

function Space({ rows }: { rows: number }) {
	if (rows <= 0) return null;
	return <tr aria-hidden="true" class="space" style={{ height: `${rows * ROW}px` }} />;
}

/** Return the first and last row to render, for the position of the table in the window. */
function useRange(body: { current: HTMLElement | null }, count: number): readonly [number, number] {
	const [top, setTop] = useState(0);
	useLayoutEffect(() => {
		if (count <= SMALL) return undefined;
		let frame = 0;
		const measure = () => {
			frame = 0;
			const above = -(body.current?.getBoundingClientRect().top ?? 0);
			setTop(Math.max(0, Math.floor(above / ROW / SPARE) * SPARE));
		};
		const soon = () => {
			if (frame === 0) frame = requestAnimationFrame(measure);
		};
		measure();
		window.addEventListener("scroll", soon, { passive: true });
		window.addEventListener("resize", soon);
		return () => {
			cancelAnimationFrame(frame);
			window.removeEventListener("scroll", soon);
			window.removeEventListener("resize", soon);
		};
	}, [count]);
	if (count <= SMALL) return [0, count - 1];
	const visible = Math.ceil(window.innerHeight / ROW);
	return [Math.max(0, top - SPARE), Math.min(count - 1, top + visible + 2 * SPARE)];
}

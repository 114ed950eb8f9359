/** A list that is read page by page: its rows, or why there are none. */

import type { ComponentChildren } from "preact";

import { Empty, Loading } from "./basic.js";
import type { Pages } from "./load.js";
import { Problem } from "./problem.js";
import { type Column, Table } from "./table.js";

interface ListedProps<T> {
	pages: Pages<T>;
	/** What stands there without any row. */
	empty: string;
	/** A sentence below it. */
	note?: ComponentChildren;
	/** The rows to show, if not all that were read. */
	rows?: readonly T[] | undefined;
	/** The table of the rows. */
	children: ComponentChildren;
}

/** A table of any kind, or what stands in its place. */
export function Listed<T>({ pages, empty, note, rows = pages.items, children }: ListedProps<T>) {
	return (
		<>
			<Problem error={pages.error} onRetry={pages.reload} />
			{pages.isLoading && pages.value === null && <Loading />}
			{rows.length > 0 || pages.hasMore ? children : pages.value !== null && <Empty title={empty}>{note}</Empty>}
		</>
	);
}

interface ListProps<T> {
	/** What the table lists, for screen readers. */
	label: string;
	pages: Pages<T>;
	columns: readonly Column<T>[];
	rowKey: (row: T) => string | number;
	empty: string;
	/** A sentence below `empty`. */
	children?: ComponentChildren;
	rows?: readonly T[];
}

export function List<T>({ label, pages, columns, rowKey, empty, children, rows }: ListProps<T>) {
	return (
		<Listed pages={pages} empty={empty} note={children} rows={rows}>
			<Table label={label} columns={columns} rows={rows ?? pages.items} rowKey={rowKey} onEnd={pages.loadMore} />
		</Listed>
	);
}

/** A list that is read page by page: its rows, or why there are none. */

import type { ComponentChildren } from "preact";

import { Empty, Loading } from "./basic.js";
import type { Pages } from "./load.js";
import { Problem } from "./problem.js";
import { type Column, Table } from "./table.js";

interface ListProps<T> {
	/** What the table lists, for screen readers. */
	label: string;
	pages: Pages<T>;
	columns: readonly Column<T>[];
	rowKey: (row: T) => string | number;
	/** What stands there without any row. */
	empty: string;
	/** A sentence below it. */
	children?: ComponentChildren;
	/** The rows to show, if not all that were read. */
	rows?: readonly T[];
}

export function List<T>({ label, pages, columns, rowKey, empty, children, rows = pages.items }: ListProps<T>) {
	const isOver = pages.value !== null && !pages.hasMore;
	return (
		<>
			<Problem error={pages.error} onRetry={pages.reload} />
			{pages.isLoading && pages.value === null && <Loading />}
			{rows.length === 0 && isOver && <Empty title={empty}>{children}</Empty>}
			{(rows.length > 0 || pages.hasMore) && <Table label={label} columns={columns} rows={rows} rowKey={rowKey} onEnd={pages.loadMore} />}
		</>
	);
}

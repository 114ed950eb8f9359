/** The parts that screens are made of. */

export * from "./basic.js";
export * from "./dialog.js";
export * from "./field.js";
export * from "./form-dialog.js";
export * from "./json-tree.js";
export * from "./list.js";
export * from "./load.js";
export * from "./problem.js";
export * from "./table.js";
export * from "./tabs.js";

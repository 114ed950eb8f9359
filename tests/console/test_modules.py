"""The parts of the console that need no page, in Node.js, and the imports of its modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.console.visitor import ROOT

TEST_S: Final = 240.0
TYPESCRIPT: Final = (ROOT / "src", ROOT.parent / "clients" / "typescript" / "src")
"""The modules of the console, and of the client that is bundled with it."""
IMPORTED: Final = re.compile(r'^(?:(?:import|export)\b.*|} )from "(.+)";$|^import "(.+)";$|\bimport\("(.+?)"\)', re.MULTILINE)
"""The module of an import or a re-export, also of types alone."""
SOCKETS: Final = ("./socket-node.js", "./socket-browser.js")
"""The modules of `#socket` in package.json."""


def imports(*folders: Path) -> dict[Path, set[Path]]:
    """Return each TypeScript module below the folders, with those that it imports by a relative path."""
    modules = {path.resolve() for folder in folders for path in folder.rglob("*.ts*")}
    named = {path: _names(path.read_text()) for path in modules}
    return {path: {imported for name in names for imported in modules & _files(path, name)} for path, names in named.items()}


def _names(source: str) -> set[str]:
    found = {name for groups in IMPORTED.findall(source) for name in groups if name}
    return found | set(SOCKETS) if "#socket" in found else found


def _files(module: Path, name: str) -> set[Path]:
    """Return the files that the name of an import may mean."""
    path = (module.parent / name).resolve()
    return {path.with_suffix(".ts"), path.with_suffix(".tsx")} if name.startswith(".") else set()


def circle(graph: Mapping[Path, set[Path]]) -> list[str]:
    """Return the names of modules that import each other in a circle; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return [path.name for path in exc.args[1]]
    return []


@pytest.mark.timeout(node.INSTALL_S + TEST_S)
def test_modules_of_the_console_pass_their_own_tests(require: Require) -> None:
    require(node.NAME, node.is_there())
    node.install(ROOT, plain_environ())
    node.run(ROOT, ("node", "test.mjs"), TEST_S, plain_environ())


def test_no_modules_of_the_console_and_its_client_import_each_other() -> None:
    graph = imports(*TYPESCRIPT)
    assert graph[TYPESCRIPT[0] / "main.tsx"]
    assert circle(graph) == []


@pytest.mark.parametrize(
    "line",
    [
        'import { a } from "./a.js";',
        'import type { A } from "./a.js";',
        'import {\n\ta,\n} from "./a.js";',
        'export { a } from "./a.js";',
        'export * from "./a.js";',
        'import "./a.js";',
        'const { a } = await import("./a.js");',
    ],
)
def test_circle_is_found_by_every_kind_of_import(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.tsx").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.ts").write_text('import { c } from "preact";\n')
    assert circle(imports(tmp_path)) == []
    (tmp_path / "b.ts").write_text(f"{line}\n")
    assert set(circle(imports(tmp_path))) == {"a.tsx", "b.ts"}

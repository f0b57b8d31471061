"""The order of the rooms: no files or rooms import each other in a circle, and a room imports from lower rooms only."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "alscore"
FACE = "alscore"  # alscore/__init__.py: it imports from every room, and no room imports it
CIMPORT = re.compile(r"^\s*(?:from\s+(alscore[\w.]*)\s+c?import\s+(\([^)]*\)|[^\n]*)|c?import\s+(alscore[\w.]*))", re.M)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {}  # files by module; a compiled module is its .pyx, .pxd and .pyi together
for path in sorted(PACKAGE.rglob("*")):
    if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
        FILES.setdefault(module_of(path), []).append(path)


def imported_by(path):
    """Yield every import of a file, wherever it stands: pairs of a module and a name in it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".pyx", ".pxd"):
        for match in CIMPORT.finditer(text):
            for name in re.split(r"[,\s]+", (match[2] or "").strip("() ")):
                yield match[1] or match[3], name
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import by the full name of the module"
            yield from ((node.module, alias.name) for alias in node.names)


def graph_of_modules():
    graph = {}
    for module, paths in FILES.items():
        pairs = [pair for path in paths for pair in imported_by(path) if pair[0].partition(".")[0] == FACE]
        leads = {f"{source}.{name}" if f"{source}.{name}" in FILES else source for source, name in pairs}
        graph[module] = leads - {module}
    return graph


def room_of(module):
    return module.split(".")[1]


def rooms():
    """Return the rooms in the order of docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [line.split()[0] for line in re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].splitlines()]


GRAPH = graph_of_modules()


def assert_no_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {' <- '.join(error.args[1])}")


def test_every_import_leads_to_a_file():
    assert {name for leads in GRAPH.values() for name in leads} <= FILES.keys()


def test_no_files_import_each_other_in_a_circle():
    assert_no_circle(GRAPH)


def test_a_circle_is_found_and_named():
    assert_no_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    with pytest.raises(pytest.fail.Exception, match=r"in a circle: .*a.* <- "):
        assert_no_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_graph_has_the_imports_of_python_and_cython_files():
    assert {"alscore.solvers", "alscore.solvers.training", "alscore._support.checks"} <= GRAPH["alscore.als"]
    assert {"alscore.solver", "alscore._core.kernel_table"} <= GRAPH["alscore._core.sweeps"]


def test_no_room_imports_the_package_itself():
    inside = {module for module, leads in GRAPH.items() if FACE in leads and module != "alscore.__main__"}
    assert not inside


def test_no_rooms_import_each_other_in_a_circle():
    doors = {}
    for module, leads in GRAPH.items():
        if module != FACE:
            doors.setdefault(room_of(module), set()).update(room_of(name) for name in leads if name != FACE)
    assert_no_circle({room: leads - {room} for room, leads in doors.items()})


def test_the_page_lists_every_room():
    assert sorted(rooms()) == sorted({room_of(module) for module in FILES if module != FACE} - {"__main__"})


def test_the_picture_shows_every_room():
    picture = (ROOT / "docs" / "_static" / "rooms.svg").read_text(encoding="utf-8")
    assert sorted(re.findall(r'class="name"[^>]*>(\w+)<', picture)) == sorted(rooms())


def test_no_room_imports_from_a_room_above_it():
    floor = {room: number for number, room in enumerate([*rooms(), "__main__"])}
    wrong = [
        f"{module} -> {name}"
        for module, leads in GRAPH.items()
        if module != FACE
        for name in leads - {FACE}
        if floor[room_of(name)] > floor[room_of(module)]
    ]
    assert not wrong


def test_an_import_inside_a_function_or_for_type_checkers_counts(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("if TYPE_CHECKING:\n    from alscore.als import A\ndef f():\n    import alscore.cli\n")
    assert list(imported_by(path)) == [("alscore.als", "A"), ("alscore.cli", "")]
    path = tmp_path / "module.pyx"
    path.write_text("from alscore._core.blas cimport (gemm,\n   syrk)\ncimport alscore.solver as table\n")
    assert [name for name, _ in imported_by(path)] == ["alscore._core.blas", "alscore._core.blas", "alscore.solver"]

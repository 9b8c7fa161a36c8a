"""Say what `app.main` imports from libraries: `python libraries.py`, in the folder and environment of a service.

Printed is a program with exactly those import statements that run when `app.main` is imported, so that its time can be
compared with theirs. What is imported inside functions, or for type checkers, is not among them.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path


def statements(source: str) -> Iterator[str]:
    """Yield the import statements at the top of a module, other than those of the standard library and of the app."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names = [alias for alias in node.names if foreign(alias.name)]
            if names:
                yield ast.unparse(ast.Import(names=names))
        elif isinstance(node, ast.ImportFrom) and node.module and foreign(node.module):
            yield ast.unparse(node)


def foreign(module: str) -> bool:
    """Return whether a module belongs to a library."""
    top = module.partition(".")[0]
    return top != "app" and top not in sys.stdlib_module_names


def main() -> None:
    """Print the program."""
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("app.main")
    # In the order in which they were imported: a library that another one imports anyway is then not counted twice.
    sources = [module.__file__ for name, module in list(sys.modules.items()) if name.partition(".")[0] == "app"]
    found = (line for path in sources if path for line in statements(Path(path).read_text("utf-8")))
    print("\n".join(dict.fromkeys(found)))


if __name__ == "__main__":
    main()

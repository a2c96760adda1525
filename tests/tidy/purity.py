"""What a pure room may not do, found by walking its syntax tree.

The import contracts keep whole modules out; this looks for what comes in through allowed ones (`datetime.now`,
`numpy.random`), for builtins that print, read or depend on the process (`hash` of a string differs from run to run),
and for iteration over sets, whose order differs from run to run. A loop over a set whose order cannot matter says so:
`# unordered -- reason` on its line.

Not found here: a set that arrives through an argument or an attribute. Property tests for determinism see those.
"""

import ast
from collections.abc import Iterator
from typing import Final

from tests.tidy.sources import Module

BANNED_BUILTINS: Final = frozenset({"__import__", "breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"})
# A dotted name is banned when it equals one of these or lies below it.
BANNED_NAMES: Final = (
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "functools.cache",
    "importlib",
    "numpy.fromfile",
    "numpy.load",
    "numpy.memmap",
    "numpy.random",
    "numpy.save",
    "os",
    "random",
    "secrets",
    "time",
    "uuid",
    "warnings",
)
# Consumers for which the order of what they read does not matter.
ORDER_FREE: Final = frozenset({"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"})
ORDERED_COPIES: Final = frozenset({"enumerate", "iter", "list", "map", "next", "reversed", "tuple", "zip"})
SET_METHODS: Final = frozenset({"difference", "intersection", "symmetric_difference", "union"})
SET_OPERATORS: Final = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)

Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


def impurities(module: Module) -> list[str]:
    """Return a finding for each impure call, coroutine, global statement and unordered iteration of a module."""
    tree = module.tree
    findings = [*_calls(module, tree), *_statements(module, tree)]
    excused = {line for line, comment in module.comments() if comment.startswith("# unordered -- ")}
    for scope in ast.walk(tree):
        if isinstance(scope, Scope):
            findings.extend(
                module.finding(line, "iterates over a set: sort it, or say `# unordered -- reason`")
                for line in sorted(_unordered(scope))
                if line not in excused
            )
    return findings


def _calls(module: Module, tree: ast.Module) -> Iterator[str]:
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in BANNED_BUILTINS and isinstance(node.ctx, ast.Load):
            yield module.finding(node.lineno, f"uses {node.id}()")
        elif isinstance(node, ast.Attribute | ast.Name):
            name = _dotted(node, aliases)
            if any(name == banned or name.startswith(f"{banned}.") for banned in BANNED_NAMES):
                yield module.finding(node.lineno, f"uses {name}")


def _statements(module: Module, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield module.finding(node.lineno, "is asynchronous")
        elif isinstance(node, ast.Global):
            yield module.finding(node.lineno, "changes the module's state")


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name of a module stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """Return the imported name that an expression refers to, or an empty string."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _own_nodes(scope: Scope) -> Iterator[ast.AST]:
    """Yield the nodes of a scope without those of functions inside it, which are scopes of their own."""
    pending: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


def _unordered(scope: Scope) -> set[int]:
    """Return the lines on which a scope depends on the order of a set."""
    nodes = list(_own_nodes(scope))
    known = _set_names(nodes)
    free = {
        id(argument)
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDER_FREE
        for argument in node.args
    }
    lines: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.For) and _is_set(node.iter, known):
            lines.add(node.lineno)
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and id(node) not in free:
            lines.update(g.iter.lineno for g in node.generators if _is_set(g.iter, known))
        elif isinstance(node, ast.Starred) and _is_set(node.value, known):
            lines.add(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDERED_COPIES:
            if id(node) not in free and any(_is_set(argument, known) for argument in node.args):
                lines.add(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            takes_any = node.func.attr == "pop" and not node.args and _is_set(node.func.value, known)
            joins = node.func.attr == "join" and any(_is_set(argument, known) for argument in node.args)
            if takes_any or joins:
                lines.add(node.lineno)
    return lines


def _set_names(nodes: list[ast.AST]) -> frozenset[str]:
    """Return the local names that hold nothing but sets, as far as their assignments show."""
    sets: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                (sets if _is_set(value, frozenset()) else others).add(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                (sets if _is_set_type(annotation) else others).add(name)
            case _:
                pass
    return frozenset(sets - others)


def _is_set_type(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return isinstance(annotation, ast.Name) and annotation.id in {"frozenset", "set"}


def _is_set(node: ast.expr, known: frozenset[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Name(id=name):
            return name in known
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in SET_METHODS:
            return _is_set(owner, known)
        case ast.BinOp(op=operator, left=left, right=right) if isinstance(operator, SET_OPERATORS):
            return any(_is_set(side, known) or _is_keys(side) for side in (left, right))
        case _:
            return False


def _is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"

"""YAML as configuration files have it: plain values, numbers as YAML 1.2 writes them, no key twice."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Plain values only; numbers as YAML 1.2 has them, where 1e-3 is one, and no key twice."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: text that it would take for a number is quoted."""


_NUMBER = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$")
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        start: [rule for rule in rules if rule[0] not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")]
        for start, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Left to itself PyYAML folds a NEL or LS character inside quotes, and reads a space back.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    repeated = next((number for number, key in enumerate(keys) if key in keys[:number]), None)
    if repeated is not None:
        what, mark = f"the key {keys[repeated]!r}, which occurs twice", node.value[repeated][0].start_mark
        raise yaml.constructor.ConstructorError(None, None, what, mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def load(text: str) -> Any:
    """The document, None where it is empty; ValueError where it cannot be read. Aliases are none of its values."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader)):
            raise ValueError("an alias (*name), which is not read")
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" (at line {mark.line + 1}, column {mark.column + 1})"
        raise ValueError(f"{error.problem or error.context}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dump(tables: dict[str, dict[str, Any]]) -> str:
    text: str = yaml.dump(tables, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text

"""Compares a reply with an OpenAPI file, edgedns/web/openapi.json if none is said: the part of JSON Schema that they use."""

from __future__ import annotations

import json
from typing import Any

from edgedns.serve.admin import OPENAPI

DOCUMENT: dict[str, Any] = json.loads(OPENAPI.read_text())
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def mismatch(
    method: str, path: str, status: int, content_type: str, body: bytes, document: dict[str, Any] = DOCUMENT
) -> str:
    """Empty when route, status, content type and body are as described, else what is not."""
    operation = _operation(document, method, path.partition("?")[0])
    described = operation.get("responses", {}).get(str(status)) if operation else None
    if described is None and status in (403, 500):
        # The guard's refusals are the same everywhere; `info` describes them.
        described = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    if described is None:
        return f"{method} {path}: status {status} is not described"
    if "content" not in described:
        return f"{method} {path}: {status} has a body, which is not described" if body else ""
    media = described["content"].get(content_type)
    if media is None:
        return f"{method} {path}: content type {content_type} is not described for {status}"
    if content_type != "application/json":
        return ""
    return _differs(json.loads(body), media["schema"], f"{method} {path}", document["components"]["schemas"])


def _operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in document["paths"].items():
        parts, found = pattern.split("/"), path.split("/")
        if len(parts) == len(found) and all(a == b or a.startswith("{") for a, b in zip(parts, found, strict=True)):
            found_operation: dict[str, Any] | None = operations.get(method.lower())
            return found_operation
    return None


def _differs(value: Any, schema: dict[str, Any], at: str, named: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _differs(value, named[schema["$ref"].rpartition("/")[2]], at, named)
    if "anyOf" in schema:
        each = [_differs(value, one, at, named) for one in schema["anyOf"]]
        return "" if "" in each else each[0]
    if "const" in schema and value != schema["const"]:
        return f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at}: {value!r} is none of {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, TYPES[kind]) and (kind == "boolean" or value is not True) for kind in kinds):
        return f"{at}: {value!r} is not {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _object_differs(value, schema, at, named)
    if isinstance(value, list) and "items" in schema:
        return next((wrong for item in value if (wrong := _differs(item, schema["items"], f"{at}[]", named))), "")
    return ""


def _object_differs(value: dict[str, Any], schema: dict[str, Any], at: str, named: dict[str, Any]) -> str:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key in schema.get("required", []):
        if key not in value:
            return f"{at}: {key} is missing"
    for key, item in value.items():
        inner = properties.get(key, more)
        if inner is False:
            return f"{at}: {key} is not described"
        if isinstance(inner, dict) and (wrong := _differs(item, inner, f"{at}.{key}", named)):
            return wrong
    return ""

"""Reads a YAML file with the line of every key, and turns what pydantic finds wrong into faults with those lines.

YAML 1.1 through libyaml's safe loader; no tags, no duplicate keys, bounded size and depth (a file can be written by an
attacker who only reached the configuration repository).
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from ringfence.errors import ConfigError, ConfigFault

MAX_BYTES = 16 * 1024 * 1024
MAX_NODES = 1_000_000
MAX_DEPTH = 64

Model = TypeVar("Model", bound=BaseModel)


def _based(value: Path, info: ValidationInfo) -> Path:
    base: Path | None = (info.context or {}).get("base")
    return base / value if base is not None else value


ConfigPath = Annotated[Path, AfterValidator(_based)]
"""A path option; a relative one is relative to the folder of the configuration file."""
STANDARD_INPUT = Path("-")


def _based_or_stdin(value: Path, info: ValidationInfo) -> Path:
    return value if value == STANDARD_INPUT else _based(value, info)


InputPath = Annotated[Path, AfterValidator(_based_or_stdin)]
"""A path option of what is read, where `-` is standard input."""
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its data, and the line (from 1) at which each path of it stands."""

    file: str
    data: dict[str, Any]
    lines: Mapping[Loc, int]

    def line(self, loc: Loc) -> int:
        """The line of a path, or of its nearest parent that the file has."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 0)

    def fault(self, loc: Loc, message: str) -> ConfigFault:
        """A fault at a path of this file."""
        return ConfigFault(self.file, self.line(loc), dotted(loc), message)


def dotted(loc: Loc) -> str:
    """`collectors.edge.listen`, `intents[2].from`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, accepted: Sequence[str]) -> str:
    """` ; did you mean X?` when something accepted is close, else the list of what is accepted."""
    close = difflib.get_close_matches(word, accepted, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; accepted: {', '.join(sorted(accepted))}" if accepted else ""


def read(path: Path) -> Document:
    """Parse a file. Raises ConfigError with one fault that says what is wrong and where."""
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _failed(path, (mark.line + 1) if mark else 0, f"not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise _failed(path, *_unreadable(text, error)) from None
    if node is None:
        raise _failed(path, 0, "the file is empty")
    if not isinstance(node, yaml.MappingNode):
        raise _failed(path, node.start_mark.line + 1, "the file must be a mapping of names to values")
    builder = _Builder(path)
    data = builder.build(node, (), 0)
    if builder.faults:
        raise ConfigError(builder.faults)
    return Document(str(path), data, builder.lines)


def _unreadable(text: str, error: yaml.YAMLError) -> tuple[int, str]:
    """Line and reason of an error without a mark: a character that YAML does not allow."""
    place = getattr(error, "position", None)
    line = text[:place].count("\n") + 1 if isinstance(place, int) else 0
    return line, f"not valid YAML: {str(error).splitlines()[0]}"


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _failed(path, 0, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _failed(path, 0, f"is {len(raw)} bytes long; at most {MAX_BYTES} are accepted")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _failed(path, line, f"byte {error.start} is not valid UTF-8") from None


def _failed(path: Path, line: int, message: str) -> ConfigError:
    return ConfigError([ConfigFault(str(path), line, "", message)])


_UNUSABLE = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What PyYAML raises for a value that does not fit its tag, such as `!!int ""`, `!!bool maybe` or `!!timestamp soon`."""


class _Builder:
    """Builds plain data from YAML nodes, noting lines, duplicate keys and unusable tags."""

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        self.lines: dict[Loc, int] = {}
        self.faults: list[ConfigFault] = []
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, loc: Loc, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ConfigError([self._fault(node, loc, f"more than {MAX_NODES} values or {MAX_DEPTH} levels")])
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*loc, index), depth + 1) for index, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except _UNUSABLE as error:
            self.faults.append(self._fault(node, loc, f"cannot be read as a value: {error}".splitlines()[0]))
            return None

    def _mapping(self, node: yaml.MappingNode, loc: Loc, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(self._fault(key_node, loc, "a name must be plain text"))
                continue
            key = str(key_node.value)
            here = (*loc, key)
            if key in data:
                message = f"stands twice, first at line {self.lines[here]}"
                self.faults.append(ConfigFault(self.file, key_node.start_mark.line + 1, dotted(here), message))
                continue
            self.lines[here] = key_node.start_mark.line + 1
            data[key] = self.build(value_node, here, depth + 1)
        return data

    def _fault(self, node: yaml.Node, loc: Loc, message: str) -> ConfigFault:
        return ConfigFault(self.file, node.start_mark.line + 1, dotted(loc), message)


def validate(model: type[Model], document: Document, data: Any, at: Loc = ()) -> Model:
    """Check data that stands at a path of a document. Raises ConfigError with every fault that pydantic finds."""
    try:
        return model.model_validate(data, context={"base": Path(document.file).absolute().parent})
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise ConfigError([_explain(model, document, detail, at) for detail in details])


def _explain(model: type[BaseModel], document: Document, detail: Any, at: Loc) -> ConfigFault:
    loc: Loc = tuple(detail["loc"])
    if detail["type"] == "extra_forbidden":
        accepted = sorted({name for names in _accepted(model, loc[:-1]) for name in names})
        return document.fault((*at, *loc), f"unknown option{nearest(str(loc[-1]), accepted)}")
    if detail["type"] == "missing":
        return document.fault((*at, *loc), "is required")
    message = str(detail["msg"]).removeprefix("Value error, ")
    found = detail.get("input")
    if isinstance(found, (str, int, float, bool)) and detail["type"] != "value_error":
        message = f"{message}; found {found!r}"
    return document.fault((*at, *loc), message)


def _accepted(annotation: Any, loc: Loc) -> Iterator[Sequence[str]]:
    """The option names that are accepted below a path, walking through the annotations of the model."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        if not loc:
            yield list(fields)
        elif loc[0] in fields:
            yield from _accepted(fields[str(loc[0])], loc[1:])
        return
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            yield from _accepted(option, loc)
    elif origin is typing.Annotated:
        yield from _accepted(args[0], loc)
    elif args and loc:
        yield from _accepted(args[-1], loc[1:])

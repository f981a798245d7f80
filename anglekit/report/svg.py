"""A figure's svg, prepared for a page: small, with ids of its own, its styles as classes that the page shares.

Matplotlib writes a style into every mark, and the page's policy allows no style outside of its style sheet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from anglekit.display.html import Markup, element, joined

_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_STEPS = {"M": 1, "L": 1, "Q": 2, "C": 3}
_LEFT_OUT = frozenset({"metadata", "style"})
_HREF = "{http://www.w3.org/1999/xlink}href"
# Attributes of matplotlib's files that a page does not need: the page sets the size, and the rest holds anyway.
_DROPPED = frozenset({"id", "style", "width", "height", "version"})
_UNMOVED = re.compile(r"rotate\(-?0(?:\.0)?(?: [^)]*)?\)")


@dataclass
class StyleSheet:
    """The classes given to the drawings' styles, in the order of their first use."""

    classes: dict[str, str] = field(default_factory=dict)

    def class_of(self, style: str) -> str:
        """Return the class of a style."""
        return self.classes.setdefault(_tidy(style), f"s{len(self.classes)}")

    def css(self) -> str:
        """Return the rules of all classes."""
        return "".join(f".{name}{{{style}}}" for style, name in self.classes.items())


def inline_svg(source: bytes, *, key: str, title: str, description: str, styles: StyleSheet) -> Markup:
    """Return a figure's svg file as a drawing for a page.

    Its ids start with `key`, which must be unique in the page; its styles are added to the page's.
    """
    tree = _Tree.read(source, key)
    names = joined(element("title", title, id=f"{key}-title"), element("desc", description, id=f"{key}-desc"))
    box = " ".join(_short(float(part)) for part in tree.root.attrib["viewBox"].split())
    return Markup(
        f'<svg class="drawing" viewBox="{box}" role="img" aria-labelledby="{key}-title" '
        f'aria-describedby="{key}-desc">{names}{_marks(styles, tree)}</svg>'
    )


@dataclass(frozen=True)
class _Tree:
    """A parsed drawing, and the new names of its referenced ids."""

    root: ElementTree.Element
    ids: Mapping[str, str]

    @classmethod
    def read(cls, source: bytes, key: str) -> _Tree:
        root = ElementTree.fromstring(source)
        wanted = set()
        for node in root.iter():
            for value in node.attrib.values():
                wanted |= set(_REFERENCE.findall(value))
            wanted.add(node.attrib.get(_HREF, "").removeprefix("#"))
        found = [node.attrib["id"] for node in root.iter() if node.attrib.get("id") in wanted]
        return cls(root, {name: f"{key}-{number}" for number, name in enumerate(dict.fromkeys(found))})

    def style(self, node: ElementTree.Element) -> str:
        return self._renamed(node.attrib.get("style", ""))

    def attributes(self, node: ElementTree.Element) -> dict[str, str]:
        """Return the attributes to keep, as they are written."""
        kept = {}
        if node.attrib.get("id") in self.ids:
            kept["id"] = self.ids[node.attrib["id"]]
        sized = _tag(node) in ("rect", "image", "pattern")
        for name, value in node.attrib.items():
            if name == _HREF:
                link = value.removeprefix("#")
                kept["href"] = f"#{self.ids[link]}" if link in self.ids else value
            elif name == "transform" and _UNMOVED.fullmatch(value):
                continue
            elif name not in _DROPPED or (sized and name in ("width", "height")):
                plain_name = name.rsplit("}", 1)[-1]
                kept[plain_name] = _path(value) if name == "d" else self._renamed(_rounded(plain_name, value))
        return kept

    def _renamed(self, value: str) -> str:
        return _REFERENCE.sub(lambda found: f"url(#{self.ids.get(found[1], found[1])})", value)


def _marks(styles: StyleSheet, tree: _Tree) -> str:
    """Return the contents of a drawing, with its styles as classes."""

    def inside(node: ElementTree.Element) -> Iterator[str]:
        for child in node:
            tag = _tag(child)
            if tag in _LEFT_OUT:
                continue
            attributes = tree.attributes(child)
            style = tree.style(child)
            if style:
                attributes["class"] = styles.class_of(style)
            children = "".join(inside(child))
            text = (child.text or "") if tag in ("text", "tspan") else ""
            if tag == "defs" and not children:
                continue
            if tag == "g" and not attributes:  # a group without any effect
                yield children
                continue
            written = "".join(f' {name}="{joined(value)}"' for name, value in attributes.items())
            body = joined(text) + children
            yield f"<{tag}{written}>{body}</{tag}>" if body else f"<{tag}{written}/>"
            if tag == "tspan":
                yield joined(child.tail or "")

    return "".join(inside(tree.root))


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else ""


def _tidy(style: str) -> str:
    """Return a style without needless spaces; a reader without matplotlib's font gets an equally wide one."""
    parts = (part.split(":", 1) for part in style.split(";") if ":" in part)
    text = ";".join(f"{name.strip()}:{value.strip()}" for name, value in parts)
    return text.replace("'DejaVu Sans', sans-serif", "'DejaVu Sans',Verdana,sans-serif")


def _rounded(name: str, value: str) -> str:
    """Return numbers with two decimals: a hundredth of a point; a scale keeps its digits."""
    if name in ("x", "y", "width", "height") or (
        name == "transform" and "scale" not in value and "matrix" not in value
    ):
        return _NUMBER.sub(lambda found: _short(float(found[0])), value)
    return value


def _short(number: float) -> str:
    return _hundredths(round(number * 100))


def _hundredths(number: int) -> str:
    whole, rest = divmod(abs(number), 100)
    digits = f"{rest:02d}".rstrip("0")
    text = f"{whole or ''}.{digits}" if digits else str(whole)
    return f"-{text}" if number < 0 else text


def _path(source: str) -> str:
    """Return a path in relative steps of hundredths of a point; each starts at the last rounded place: no drift."""
    tokens = re.findall(r"[A-Za-z]|" + _NUMBER.pattern, source)
    if any(token.isalpha() and token not in "MLQCz" for token in tokens):
        return source
    out, position, at, command, start = [], 0, (0, 0), "", (0, 0)
    while position < len(tokens):
        if tokens[position].isalpha():
            command = tokens[position]
            position += 1
        if command == "z":
            out.append("z")
            at = start
            continue
        count = 2 * _STEPS[command]
        numbers = [round(float(token) * 100) for token in tokens[position : position + count]]
        position += count
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        steps = [(x - at[0], y - at[1]) for x, y in points]
        if command == "L" and 0 in steps[0]:
            dx, dy = steps[0]
            out.append(f"v{_hundredths(dy)}" if dx == 0 else f"h{_hundredths(dx)}")
        else:
            out.append(command.lower() + _run([number for step in steps for number in step]))
        at = points[-1]
        if command == "M":
            start, command = at, "L"  # after a move, points without a letter are lines
    return "".join(out)


def _run(numbers: list[int]) -> str:
    """Return numbers joined, with a space only where they would run together."""
    text = ""
    for number in numbers:
        written = _hundredths(number)
        text += written if not text or written.startswith("-") else f" {written}"
    return text

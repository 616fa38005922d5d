"""Patterns of a tokenizer.json (Oniguruma's, as the library compiles them) as JavaScript's with the flag `u`.

The two languages agree about little: white space differs, and JavaScript of 2023 has no `(?i:`. So a pattern is
translated item by item, and an item that is not known to mean the same is refused.
"""

import re

from base.errors import TspError

SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which Oniguruma's \\s is. JavaScript's has U+FEFF and lacks U+0085."""
SAME = {"r": r"\r", "n": r"\n", "t": r"\t", "d": r"\p{Nd}", "D": r"\P{Nd}"}
FOLDS = {"s": "sS\u017f", "k": "kK\u212a"}
"""Characters beyond the two cases that equal a letter when case does not matter."""
SYNTAX = set("^$\\.*+?()[]{}|/")
PROPERTY = re.compile(r"\\[pP]\{(?:L|Lu|Ll|Lt|Lm|Lo|M|Mn|Mc|Me|N|Nd|Nl|No|P|S|Z|Zs|C|Cc)\}")
GROUP = re.compile(r"\(\?(?:[:!=]|i:)")
REPEAT = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")


def to_javascript(pattern: str) -> str:
    """The pattern's translation. Raises TspError that names the item that has none."""
    return _Translation(pattern).text()


def literal(text: str) -> str:
    """A pattern for the text itself."""
    return "".join("\\" + char if char in SYNTAX else char for char in text)


class _Translation:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0
        self._folds: list[bool] = [False]  # of the groups that are open

    def text(self) -> str:
        found = []
        while self._at < len(self._pattern):
            found.append(self._item())
        return "".join(found)

    def _item(self) -> str:
        char = self._pattern[self._at]
        if char == "(":
            return self._group()
        if char == ")":
            self._folds.pop()
            return self._take(1)
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape(inside=False)
        if match := REPEAT.match(self._pattern, self._at):
            self._take(len(match[0]))
            if self._pattern[self._at : self._at + 1] in ("+", "?", "*"):
                raise self._refusal(match[0] + self._pattern[self._at])  # possessive or lazy
            return match[0]
        if char == "|":
            return self._take(1)
        if char in "^$.{":
            raise self._refusal(char)
        self._take(1)
        return self._letter(char)

    def _take(self, count: int) -> str:
        self._at += count
        return self._pattern[self._at - count : self._at]

    def _refusal(self, what: str) -> TspError:
        return TspError(f"the page's tokenizer does not know {what!r} in the pattern {self._pattern!r}")

    def _group(self) -> str:
        match = GROUP.match(self._pattern, self._at)
        if match is None and self._pattern.startswith("(?", self._at):
            raise self._refusal(self._pattern[self._at : self._at + 4])
        opening = match[0] if match else "("
        self._take(len(opening))
        self._folds.append(self._folds[-1] or opening == "(?i:")
        return opening if opening in ("(?!", "(?=") else "(?:"

    def _letter(self, char: str) -> str:
        if self._folds[-1] and char.isalpha():
            if not char.isascii():
                raise self._refusal(char)
            return f"[{FOLDS.get(char.lower(), char.lower() + char.upper())}]"
        return "\\" + char if char in SYNTAX else char

    def _escape(self, inside: bool) -> str:
        if match := PROPERTY.match(self._pattern, self._at):
            return self._take(len(match[0]))
        name = self._pattern[self._at + 1 : self._at + 2]
        if name == "s" or (name == "S" and not inside):
            self._take(2)
            return SPACE if inside else f"[{'^' * (name == 'S')}{SPACE}]"
        if name in SAME or name in SYNTAX or (name == "-" and inside):
            self._take(2)
            return SAME.get(name, "\\" + name)
        if name and name.isascii() and not name.isalnum():
            self._take(2)
            return name
        raise self._refusal("\\" + name)

    def _class(self) -> str:
        self._take(1)
        found = ["[", "^" if self._pattern.startswith("^", self._at) and self._take(1) else ""]
        if self._folds[-1] or self._pattern.startswith("]", self._at):
            raise self._refusal("[")
        while not self._pattern.startswith("]", self._at):
            char = self._pattern[self._at : self._at + 1]
            if not char or char == "[" or self._pattern.startswith("&&", self._at):
                raise self._refusal("[")
            found.append(self._escape(inside=True) if char == "\\" else self._plain(char))
        return "".join([*found, self._take(1)])

    def _plain(self, char: str) -> str:
        self._take(1)
        return "\\" + char if char in SYNTAX else char

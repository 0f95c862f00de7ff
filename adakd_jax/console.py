"""The one way to print through rich: text comes out as it is, whatever stands in it.

Paths, rows and answers are the users' own and may hold anything that rich would read as markup
('[/INST]'), as an emoji code (':smile:') or as something to colour. So the package prints through
this console only. What needs a style is a `rich.text.Text`, or gets `style=`.
"""

import unicodedata
from typing import Any

import rich.console
from rich.progress import TextColumn
from rich.status import Status
from rich.text import Text

LINE_WIDTH = 120  # of tables, where the output is not a terminal
_HIDDEN = ("Cc", "Cs")  # controls; half characters (of a file's name), which no stream takes
_KEPT_CONTROLS = "\n\t"


class Console(rich.console.Console):
    """A rich console without markup, emoji codes, highlighting and broken lines.

    Tables, titles and cells included. Lines of text are never folded at the console's width: a
    terminal folds them itself, and in a log a path stays in one piece.
    """

    def __init__(self, *, width: int | None = None, **options: Any):
        """Takes rich's own options; `width` is that of tables, by default the terminal's."""
        super().__init__(width=width, **options)
        if width is None and not self.is_terminal:
            self.width = LINE_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as it is, with control characters (of a terminal's colours, say) made visible."""
        options |= {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints text in unbroken lines, and everything else as rich does."""
        is_text = all(isinstance(each, str | Text) for each in objects)
        super().print(*objects, **{"soft_wrap": is_text, "highlight": False, **options})

    def status(self, status: Any, **options: Any) -> Status:
        """Shows what is being done; rich itself reads a string here as markup."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def progress_text(template: str) -> TextColumn:
    """A column of text for `rich.progress.Progress`, which reads no markup."""
    return TextColumn(template, markup=False)


def visible(text: str) -> str:
    """Text with control characters as escapes, so that none of them reaches a terminal."""
    if text.isprintable():
        return text
    return "".join(
        repr(character)[1:-1]
        if unicodedata.category(character) in _HIDDEN and character not in _KEPT_CONTROLS
        else character
        for character in text
    )

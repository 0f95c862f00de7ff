"""Text files that are there whole or not at all, whenever the program is killed."""

from etils import epath


def write_whole(file: epath.Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part of either.

    Args:
        file: local or gs://; its folder is made if absent.
        text: all of its content.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)

"""Writing a file at once."""

from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Writes a text file, its folder too; whoever reads it sees the old text or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)

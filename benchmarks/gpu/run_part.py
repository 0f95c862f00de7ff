"""The process of one part: prints each row that it finds as a line of JSON."""

import argparse
import json
from pathlib import Path

from benchmarks.gpu.options import Options
from benchmarks.gpu.parts import PARTS

ROW = "row "


def main() -> None:
    """Runs the part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("options", help="Options, as JSON")
    arguments = parser.parse_args()
    given = json.loads(arguments.options)
    rows = None if given["rows"] is None else Path(given["rows"])
    options = Options(**given | {"out": Path(given["out"]), "rows": rows})
    _keep_compilations()
    for row in PARTS[arguments.part].load()(options):
        print(ROW + json.dumps(row), flush=True)


def _keep_compilations() -> None:
    from adakd_jax.eval.command import keep_compilations

    keep_compilations()


if __name__ == "__main__":
    main()

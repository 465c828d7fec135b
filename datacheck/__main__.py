"""``python -m datacheck``: checks the dataset of a training run and writes the result as the termination message.

The exit code is 0 also if checks failed, since that is a result; it is 1, with the reason in the last line, if there is
no result.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datacheck.checks import CheckResult, apply_types, run_checks
from datacheck.dataset import DatasetError, read_dataset
from datacheck.profile import build_profile, compare_with_previous
from datacheck.result import format_result
from datacheck.schema import SchemaError, parse_schema


def check_dataset(
    directory: Path, inputs: Mapping[str, Any], now: datetime
) -> tuple[list[CheckResult], dict[str, Any] | None]:
    """Return checks and profile of the dataset in ``directory``; ``inputs`` is the content of inputs.json. Raises
    SchemaError."""
    schema = parse_schema(inputs.get("schema") or {})
    try:
        table = read_dataset(directory)
    except DatasetError as error:
        return [CheckResult("readable", False, str(error))], None
    data = apply_types(table, schema)
    rows, columns = table.frame.shape
    checks = [CheckResult("readable", True, f"{rows} rows of {columns} columns"), *run_checks(data, now)]
    if schema.previous is not None:
        checks += compare_with_previous(data, inputs.get("previousProfile"), schema.previous)
    return checks, build_profile(data)


def main() -> int:
    """Check the dataset and return the exit code: 0 with a result, 1 without one."""
    values = [os.environ.get(name) for name in ("INPUTS_FILE", "DATASET_DIR")]
    if not all(values):
        print("data check: INPUTS_FILE and DATASET_DIR are needed: run it as a stage of a TrainingRun", file=sys.stderr)
        return 1
    file, directory = (Path(str(value)) for value in values)
    try:
        inputs = json.loads(file.read_text())
        checks, profile = check_dataset(directory, inputs, datetime.now(UTC))
    except (OSError, json.JSONDecodeError) as error:
        print(f"data check: {file} can't be read: {error}", file=sys.stderr)
        return 1
    except SchemaError as error:
        print(f"data check: {error}", file=sys.stderr)
        return 1
    for value in sorted(checks, key=lambda value: value.passed):
        print(f"{'pass' if value.passed else 'FAIL'} {value.name}: {value.message}".rstrip(": "), flush=True)
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    text = format_result(checks, profile)
    if log.exists():
        log.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

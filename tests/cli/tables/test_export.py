from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from artcafe.cli.commands import artcafe

REFUSED = 3


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(artcafe, ["tables", "export", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_template_is_printed_as_json() -> None:
    code, out, _ = run()
    assert (code, len(json.loads(out)["Resources"])) == (0, 9)
    code, out, _ = run("--format", "terraform", "--environment", "both")
    assert (code, len(json.loads(out)["resource"]["aws_dynamodb_table"])) == (0, 13)


def test_export_writes_a_new_file_and_keeps_an_existing_one(tmp_path: Path) -> None:
    file = tmp_path / "tables.tf.json"
    code, out, _ = run("--format", "terraform", "--environment", "dev", "--output", str(file), "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["file"], report["format"], len(report["tables"])) == (str(file), "terraform", 9)
    written = file.read_text()
    assert {each["name"] for each in json.loads(written)["resource"]["aws_dynamodb_table"].values()} == set(report["tables"])
    code, _, err = run("--output", str(file))
    assert (code, "exists already" in err, file.read_text()) == (REFUSED, True, written)
    code, _, err = run("--output", str(tmp_path / "none" / "tables.json"), "--json")
    assert (code, json.loads(err)["error"]["code"]) == (REFUSED, "tables_refused")


def test_unknown_format_or_environment_exits_with_2() -> None:
    assert run("--format", "pulumi")[0] == 2
    assert run("--environment", "staging")[0] == 2
